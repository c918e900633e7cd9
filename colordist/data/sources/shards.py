"""The source `shards`: images packed into tar files by ``python -m colordist.data.pack``, read by index.

Nothing but the test split has to fit into memory. The training images lie in a random order, made when they were
packed: so the first of them are a sample of all.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from colordist.config import UserError
from colordist.data.decode import Undecodable, decode, fit
from colordist.data.source import Image, ImageSource, Labels, Source, StreamedDataConfig, cache_folder, check_classes
from colordist.data.sources.folder_files import printable
from colordist.data.sources.shard_index import Index, Shard
from colordist.data.sources.shard_store import ShardStore

logger = logging.getLogger(__name__)

_NAMES_SHOWN = 5
_GREY = 128  # stands for an image that can't be decoded


@dataclass(frozen=True, kw_only=True)
class ShardSettings(StreamedDataConfig):
    """Shards in a folder or at an http(s) URL."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if "://" in self.root and not self.root.startswith(("http://", "https://")):
            raise UserError(
                f"data.root is {self.root}, but shards come from a folder, http or https: fetch them some other way, "
                "and name their folder"
            )


class ShardSource(ImageSource):
    """Images packed into shards."""

    Settings = ShardSettings
    description = (
        "images packed into shards. Their content, origin and licence, and whether they were JPEGs, which blurs "
        "colours, are known to whoever packed them"
    )

    def open(self) -> Source:
        """Read the index; the images follow while training."""
        settings: ShardSettings = self.settings
        return shards(settings.root, settings.class_names, settings.image_size, cache_folder() / "shards")

    def listing(self) -> str:
        """Digest of the index, which has the names, sizes and sums of all shards."""
        return ShardStore(self.settings.root, cache_folder() / "shards").index()[1][:16]

    def missing(self) -> str:
        """Why the images can't be had here; empty if they can."""
        index = Path(self.settings.root).expanduser() / "index.json"
        return "" if "://" in self.settings.root or index.is_file() else f"there is no {index}"


def shards(root: str, classes: tuple[str, ...] | None, image_size: int, cache: Path) -> Source:
    """The images in a folder of shards, scaled and cropped to squares whenever they are asked for.

    root: the folder, or its http(s) URL. classes: names, as in the index; None for all images. image_size: side in
    pixels. cache: folder for fetched shards. Raises UserError if an index or a shard is not there or damaged, or there
    is no such class.
    """
    shard_store = ShardStore(root, cache)
    index, digest = shard_store.index()
    train, test = (_split(shard_store, index, digest, image_size, which) for which in ("train", "test"))
    labels = Labels(tuple(index.classes), _shown(index, "train"), _shown(index, "test")) if index.classes else None
    if classes and labels is None:
        logger.warning("the images in %s have no classes: data.classes is ignored, all are used", root)
    if classes and labels is not None:
        check_classes(classes, labels.classes, root)
        names = tuple(name for name in labels.classes if name in classes)
        numbers = [labels.classes.index(name) for name in names]
        chosen = [np.flatnonzero(np.isin(each, numbers)) for each in (labels.train, labels.test)]
        train, test = train.part(chosen[0]), test.part(chosen[1])
        kept = (np.searchsorted(numbers, each[i]) for each, i in zip((labels.train, labels.test), chosen, strict=True))
        labels = Labels(names, *(each.astype(np.int64) for each in kept))
    for part, split in ("training", train), ("test", test):
        if not len(split):
            raise UserError(f"data.root: {root} has no {part} images of these classes: try data.classes all")
    return Source("shards", train, test, labels, digest=digest[:16])


@dataclass(frozen=True, eq=False)
class ShardSplit:
    """Images in shards, in the order in which they lie there."""

    shard_store: ShardStore
    shards: list[Shard]
    digest: str
    """SHA-256 of the index, which has the sums of all shards in it."""
    image_size: int
    where: NDArray[np.int64]
    """Each image's shard (ascending), its place in there, its offset and size in bytes: [N, 4]."""
    damaged: set[int] = field(default_factory=set)
    """Images that couldn't be decoded, so far as this process knows."""

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.where)

    def __getitem__(self, index: int, /) -> Image:
        """The image at this index: uint8 RGB, [size, size, 3]. Plain grey where it can't be decoded, which is told."""
        if (image := self.read(index)) is None:
            self.log_damaged([index])
            return self.placeholder()
        return image

    def read(self, index: int) -> Image | None:
        """The image at this index; None if it can't be decoded. Raises RunError where its shard can't be read."""
        shard, _, offset, size = self.where[index].tolist()
        try:
            content = self.shard_store.read(self.shards[shard], offset, size)
            return fit(decode(content, self.image_size), self.image_size)
        except Undecodable:
            return None

    def placeholder(self) -> Image:
        """What is shown instead of an image that can't be decoded: it depends on nothing else."""
        return np.full((self.image_size, self.image_size, 3), _GREY, np.uint8)

    def log_damaged(self, indices: Sequence[int]) -> None:
        """Name in the log, once each, the first few images that couldn't be decoded; and say when they become many."""
        for index in indices:
            if index in self.damaged:
                continue
            self.damaged.add(index)
            if len(self.damaged) in (10, 100, 1000, 10_000):
                logger.warning("%d images can't be decoded so far", len(self.damaged))
            if len(self.damaged) <= _NAMES_SHOWN:
                number, row = self.where[index, :2].tolist()
                shard = self.shards[number]
                name = printable(str(shard.keys[row]))
                more = "; further ones are only counted" if len(self.damaged) == _NAMES_SHOWN else ""
                logger.warning("%s in %s can't be decoded: grey stands for it%s", name, shard.name, more)

    def part(self, indices: NDArray[np.int64]) -> "ShardSplit":
        """Some of the images. indices: which ones, ascending, [n]."""
        return replace(self, where=self.where[indices], damaged=set())

    def shard_sizes(self) -> tuple[int, ...]:
        """How many of the images are in each shard that has any."""
        return tuple(np.unique(self.where[:, 0], return_counts=True)[1].tolist())


def _split(shard_store: ShardStore, index: Index, digest: str, size: int, which: str) -> ShardSplit:
    found = [shard for shard in index.shards if shard.split == which]
    # One array: workers, which are forked, don't copy it as they would the objects in a list.
    columns = [
        np.array([np.full(len(shard.keys), number), np.arange(len(shard.keys)), shard.offsets, shard.sizes], np.int64)
        for number, shard in enumerate(found)
    ]
    where = np.concatenate([np.empty((4, 0), np.int64), *columns], axis=1).T
    return ShardSplit(shard_store, found, digest, size, np.ascontiguousarray(where))


def _shown(index: Index, which: str) -> NDArray[np.int64]:
    """Places among the index's classes, [N]."""
    return np.array([each for shard in index.shards if shard.split == which for each in shard.classes], np.int64)
