"""Image sources: splits, and the base class of source components."""

import difflib
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from colordist.config import DataConfig, FileDataConfig
from colordist.data.crops import crop, offsets
from colordist.errors import UserError
from colordist.files.paths import expanded
from colordist.ranges import at_least

Image = NDArray[np.uint8]  # RGB, [H, W, 3]


class Split(Protocol):
    """Training or test images of a source, by index in a fixed order."""

    def __len__(self) -> int:
        """Number of images."""
        ...

    def __getitem__(self, index: int, /) -> Image:
        """The image at this index: uint8 RGB, [size, size, 3]."""
        ...


@runtime_checkable
class MaskedSplit(Split, Protocol):
    """A split with masks of the objects of ambiguous colour."""

    def objects(self, index: int) -> NDArray[np.uint8]:
        """Number of the ambiguous object at each pixel, [size, size]; 0: none."""
        ...


@runtime_checkable
class UncroppedSplit(Split, Protocol):
    """A split that can give its images as crops are taken from them. ``[index]`` is the central crop."""

    @property
    def image_size(self) -> int:
        """Side of the crops."""
        ...

    def uncropped(self, index: int) -> Image:
        """The image at this index: uint8 RGB, [H, W, 3], neither side below ``image_size``."""
        ...

    def part(self, indices: NDArray[np.int64]) -> "UncroppedSplit":
        """A subset of the images. indices: ascending, [n]."""
        ...


@runtime_checkable
class StreamedSplit(Split, Protocol):
    """A split that needn't fit into memory: worker processes read its images on demand."""

    @property
    def image_size(self) -> int:
        """Side of the crops that training takes."""
        ...

    @property
    def digest(self) -> str:
        """Digest of the images and their order."""
        ...

    def read(self, index: int) -> Image | None:
        """An image as crops are taken from it: uint8 RGB, [H, W, 3], neither side below ``image_size``.

        None for a damaged one. Raises RunError if it can't be read.
        """
        ...

    def placeholder(self) -> Image:
        """Replacement of a damaged image."""
        ...

    def log_damaged(self, indices: Sequence[int]) -> None:
        """Log damaged images, with a bounded number of lines."""
        ...

    def part(self, indices: NDArray[np.int64]) -> "StreamedSplit":
        """A subset of the images. indices: ascending, [n]."""
        ...


@dataclass(frozen=True)
class Source:
    """An open source: training and test split."""

    name: str
    train: Split
    test: Split
    digest: str | None = None
    """Digest of the image files' bytes, independent of their path, to which a run is bound. None: of the pixels."""
    ambiguous_colors: tuple[tuple[float, float], ...] = ()
    """Lab a,b of each colour of ambiguous objects; empty for a source without masks."""


class ImageSource:
    """Base class of source components.

    A new source is one file: a ``Settings`` dataclass derived from ``DataConfig`` or ``FileDataConfig``, and a class
    derived from this one (registry.py: how to register it).
    """

    Settings: ClassVar[type[DataConfig]] = DataConfig
    description: ClassVar[str] = ""
    """Content, origin and licence of the images, for model cards."""
    prepared_once: ClassVar[bool] = True
    """Whether opening downloads or decodes: then one process per machine opens first, and fills the cache."""

    def __init__(self, settings: Any) -> None:  # noqa: ANN401  of the class's Settings
        self.settings = settings

    def open(self) -> Source:
        """Open both splits. Raises UserError if the images are unavailable."""
        raise NotImplementedError

    def listing(self) -> str:
        """Digest of relative file names and sizes, for the name of the run folder; empty where the settings suffice."""
        return ""

    def training_bytes(self) -> int | None:
        """Estimated size of the decoded training images that are held on the device; None if unknown."""
        return None

    def missing(self) -> str:
        """Why the images are unavailable without a download; empty if they are there. Reads no images."""
        return ""


@dataclass(frozen=True, kw_only=True)
class StreamedDataConfig(FileDataConfig):
    """Images that may be streamed during training."""

    operational: ClassVar[frozenset[str]] = FileDataConfig.operational | {"workers"}

    workers: int = 2
    """Data loading workers per training process, for streamed images; 0: load in the training process."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("data.workers", self.workers, 0, 1024)


def cache_folder() -> Path:
    """Folder for decoded images."""
    return expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "colordist"


@dataclass(frozen=True, eq=False)
class ArraySplit:
    """A split held in one array, possibly memory-mapped.

    images: uint8 RGB, [N, size, size, 3].
    """

    images: NDArray[np.uint8]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def __getitem__(self, index: int, /) -> Image:
        """The image at this index: a view, uint8 RGB, [size, size, 3]."""
        image: Image = self.images[index]
        return image


@dataclass(frozen=True, eq=False)
class FlatSplit:
    """Images of several sizes in one array, possibly memory-mapped: an `UncroppedSplit`."""

    pixels: NDArray[np.uint8]
    """RGB, [P, 3]."""
    sizes: NDArray[np.int64]
    """Height and width of each image: [N, 2]."""
    offsets: NDArray[np.int64]
    """Number of pixels before each image: [N]."""
    image_size: int
    """Side of the crops."""

    @classmethod
    def of(cls, pixels: NDArray[np.uint8], sizes: NDArray[np.int64], image_size: int) -> "FlatSplit":
        """Images one after the other: [P, 3]. sizes: heights and widths, [N, 2]."""
        return cls(pixels, sizes, offsets(sizes), image_size)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.sizes)

    def __getitem__(self, index: int, /) -> Image:
        """The central crop of the image at this index: a view, uint8 RGB, [image_size, image_size, 3]."""
        return crop(self.uncropped(index), self.image_size)

    def uncropped(self, index: int) -> Image:
        """The image at this index: a view, uint8 RGB, [H, W, 3]."""
        (height, width), offset = self.sizes[index].tolist(), int(self.offsets[index])
        return self.pixels[offset : offset + height * width].reshape(height, width, 3)

    def part(self, indices: NDArray[np.int64]) -> "FlatSplit":
        """A subset of the images. indices: ascending, [n]."""
        return replace(self, sizes=self.sizes[indices], offsets=self.offsets[indices])


@dataclass(frozen=True, eq=False)
class PartOfSplit:
    """Subset of a split. indices: [n]."""

    whole: Split
    indices: NDArray[np.int64]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.indices)

    def __getitem__(self, index: int, /) -> Image:
        """The image at this index: uint8 RGB, [size, size, 3]."""
        return self.whole[int(self.indices[index])]


def part_of_training(source: Source, fraction: float, seed: int) -> Source:
    """Reduce a source's training split to a random subset of at least one image; keep the test split.

    The subset depends on the seed alone; that of a smaller fraction is part of that of a larger one.

    fraction: above 0, at most 1.
    """
    if fraction == 1:
        return source
    # Raw words, which NumPy keeps stable across versions.
    order = np.argsort(np.random.PCG64(np.random.SeedSequence(seed)).random_raw(len(source.train)), kind="stable")
    indices = np.sort(order[: max(1, round(fraction * len(order)))])
    whole = source.train
    train = whole.part(indices) if isinstance(whole, UncroppedSplit | StreamedSplit) else PartOfSplit(whole, indices)
    return replace(source, train=train)


def check_classes(requested: Collection[str], known: Collection[str], where: str) -> None:
    """Raise UserError, with the nearest known class, for the first unknown one."""
    for name in requested:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
            raise UserError(
                f"data.classes: no class {name!r} in {where}; the nearest of its {len(known)} is {nearest!r}; "
                "all of them: --data.classes all"
            )
