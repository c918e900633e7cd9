"""Sources of images: what they offer, and what a component of this kind is."""

import difflib
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from colordist.config import DataConfig, FileDataConfig, UserError, at_least

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
    digest: str | None = None
    """Digest of the images' content, wherever they lie, to which a run is bound: of their files' bytes, not of decoded
    pixels. None: the pixels stand for it."""
    ambiguous_colors: tuple[tuple[float, float], ...] = ()
    """Lab a,b of the colours that an ambiguous object may have; empty where the source marks no objects."""


class ImageSource:
    """Base class of the components that open a source.

    One of your own is a class in one file: a ``Settings`` dataclass derived from ``DataConfig`` or ``FileDataConfig``,
    and a class derived from this one (registry.py says how it gets its name).
    """

    Settings: ClassVar[type[DataConfig]] = DataConfig
    description: ClassVar[str] = ""
    """What the images show, where they come from, under which licence: for model cards."""
    prepared_once: ClassVar[bool] = True
    """Whether opening it fetches or decodes: then one process per machine does so first, while the others wait."""

    def __init__(self, settings: Any) -> None:  # noqa: ANN401  of the class's Settings
        self.settings = settings

    def open(self) -> Source:
        """The images. Raises UserError where they can't be had."""
        raise NotImplementedError

    def listing(self) -> str:
        """Digest of the files' relative names and sizes, for the name of the run folder; empty where settings do."""
        return ""

    def missing(self) -> str:
        """Why the images can't be had here without a download; empty if they can. Without reading them."""
        return ""


@dataclass(frozen=True, kw_only=True)
class StreamedDataConfig(FileDataConfig):
    """Images that are read while training."""

    operational: ClassVar[frozenset[str]] = FileDataConfig.operational | {"workers"}

    shuffle_shards: int = 8
    """How many shards are shuffled together; all of them: a full shuffle."""
    workers: int = 2
    """Worker processes that read and decode images, per training process; 0: the training process does."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("data.shuffle_shards", self.shuffle_shards, 1)
        at_least("data.workers", self.workers, 0)


def cache_folder() -> Path:
    """Where decoded images and fetched shards are kept for the next start."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "colordist"


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
