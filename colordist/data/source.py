"""What every source of images offers."""

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from colordist.config import UserError

Image = NDArray[np.uint8]  # RGB, [size, size, 3]


class Split(Protocol):
    """One part of a source: images by index, in an order that never changes."""

    def __len__(self) -> int:
        """How many images there are."""
        ...

    def __getitem__(self, index: int, /) -> Image:
        """The image at this index: uint8 RGB, [size, size, 3]."""
        ...


@runtime_checkable
class MaskedSplit(Split, Protocol):
    """A split that knows which pixels belong to objects of ambiguous colour."""

    def objects(self, index: int) -> NDArray[np.uint8]:
        """The number of the ambiguous object at each pixel, [size, size]; 0 where there is none."""
        ...


@runtime_checkable
class StreamedSplit(Split, Protocol):
    """A split that needn't fit into memory: images are read when they are wanted, by worker processes."""

    @property
    def digest(self) -> str:
        """What stands for the images and their order."""
        ...

    def read(self, index: int) -> Image | None:
        """The image at this index, like ``[index]``; None if it is damaged. Raises RunError if it can't be had."""
        ...

    def placeholder(self) -> Image:
        """What is shown instead of a damaged image."""
        ...

    def log_damaged(self, indices: Sequence[int]) -> None:
        """Some images are damaged: say so, but not again and again."""
        ...

    def part(self, indices: NDArray[np.int64]) -> "StreamedSplit":
        """Some of the images. indices: which ones, ascending, [n]."""
        ...

    def shard_sizes(self) -> tuple[int, ...]:
        """How many images lie side by side in each shard."""
        ...


@dataclass(frozen=True, eq=False)
class Labels:
    """What each image shows.

    classes: their names. train, test: each image's place among them, [N], in the order of the split.
    """

    classes: tuple[str, ...]
    train: NDArray[np.int64]
    test: NDArray[np.int64]


@dataclass(frozen=True)
class Source:
    """Where images come from: one split to learn from, one to be scored on."""

    name: str
    train: Split
    test: Split
    labels: Labels | None = None
    """None where the source doesn't know what its images show."""
    ambiguous_colors: tuple[tuple[float, float], ...] = ()
    """Lab a,b of the colours that an ambiguous object may have; empty where the source marks no objects."""


@dataclass(frozen=True, eq=False)
class ArraySplit:
    """A split held in one array, which may be a read-only map of a file.

    images: uint8 RGB, [N, size, size, 3].
    """

    images: NDArray[np.uint8]

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.images)

    def __getitem__(self, index: int, /) -> Image:
        """The image at this index: a view, uint8 RGB, [size, size, 3]."""
        image: Image = self.images[index]
        return image


@dataclass(frozen=True, eq=False)
class PartOfSplit:
    """Some images of a split. indices: which ones, [n]."""

    whole: Split
    indices: NDArray[np.int64]

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.indices)

    def __getitem__(self, index: int, /) -> Image:
        """The image at this index: uint8 RGB, [size, size, 3]."""
        return self.whole[int(self.indices[index])]


def part_of_training(source: Source, fraction: float, seed: int) -> Source:
    """A source of which only a part is learned from: at least one image. What is scored on stays whole.

    Which images, the seed says, and nothing else; those of a smaller fraction are among those of a larger one.

    fraction: above 0, at most 1.
    """
    if fraction == 1:
        return source
    # Raw words, which numpy promises never to change.
    order = np.argsort(np.random.PCG64(np.random.SeedSequence(seed)).random_raw(len(source.train)), kind="stable")
    indices = np.sort(order[: max(1, round(fraction * len(order)))])
    labels = source.labels and replace(source.labels, train=source.labels.train[indices])
    whole = source.train
    train = whole.part(indices) if isinstance(whole, StreamedSplit) else PartOfSplit(whole, indices)
    return replace(source, train=train, labels=labels)


def check_classes(wanted: Collection[str], known: Collection[str], where: str) -> None:
    """Raise UserError, with the nearest known class, for the first wanted class that is not known."""
    for name in wanted:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
            raise UserError(
                f"data.classes: no class {name!r} in {where}; the nearest of its {len(known)} is {nearest!r}; "
                "all of them: --data.classes all"
            )
