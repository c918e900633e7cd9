"""What every source of images offers."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]  # RGB, [size, size, 3]


class Split(Protocol):
    """One part of a source: images by index, in an order that never changes."""

    def __len__(self) -> int:
        """How many images there are."""
        ...

    def __getitem__(self, index: int, /) -> Image:
        """The image at this index: uint8 RGB, [size, size, 3]."""
        ...


class MarkedSplit(Split, Protocol):
    """A split that knows which pixels belong to objects of ambiguous colour."""

    def objects(self, index: int) -> NDArray[np.uint8]:
        """The number of the ambiguous object at each pixel, [size, size]; 0 where there is none."""
        ...


@dataclass(frozen=True)
class Source:
    """Where images come from: one split to learn from, one to be scored on."""

    name: str
    train: Split
    test: Split
