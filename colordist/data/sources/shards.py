"""The source `shards`: images packed into tar files by ``python -m colordist.data.pack``, read by index.

Only the test split has to fit into memory. Packing shuffles the training images, so the first ones are a random sample.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from colordist.config import UserError
from colordist.data.crops import crop
from colordist.data.decode import Scaling, Undecodable, decode
from colordist.data.source import Image, ImageSource, Labels, Source, StreamedDataConfig, cache_folder, check_classes
from colordist.data.sources.folder_files import printable
from colordist.data.sources.shard_index import Index, Shard
from colordist.data.sources.shard_store import ShardStore

logger = logging.getLogger(__name__)

_NAMES_SHOWN = 5
_GREY = 128  # replaces an image that can't be decoded


@dataclass(frozen=True, kw_only=True)
class ShardSettings(StreamedDataConfig):
    """Shards in a folder or at an http(s) URL."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if "://" in self.root and not self.root.startswith(("http://", "https://")):
            raise UserError(
                f"data.root is {self.root}, but shards come from a folder, http or https: download them yourself, "
                "and name their folder"
            )


class ShardSource(ImageSource):
    """Images packed into shards."""

    Settings = ShardSettings
    description = (
        "images packed into shards. Their content, origin, licence and JPEG compression, which blurs colours, are not "
        "recorded"
    )

    def open(self) -> Source:
        """Read the index; images are read during training."""
        settings: ShardSettings = self.settings
        return shards(settings.root, settings.class_names, Scaling.of(settings), cache_folder() / "shards")

    def listing(self) -> str:
        """Digest of the index, which has the names, sizes and checksums of all shards."""
        return ShardStore(self.settings.root, cache_folder() / "shards").index()[1][:16]

    def missing(self) -> str:
        """Why the images are unavailable; empty if they are there."""
        index = Path(self.settings.root).expanduser() / "index.json"
        return "" if "://" in self.settings.root or index.is_file() else f"there is no {index}"


def shards(root: str, classes: tuple[str, ...] | None, scaling: Scaling, cache: Path) -> Source:
    """Open a folder of shards; images are decoded, scaled and cropped to squares on access.

    root: folder or http(s) URL. classes: names, as in the index; None for all images. scaling: of training images; test
    images are cropped. cache: folder for downloaded shards. Raises UserError if the index or a shard is missing or
    damaged, or there is no such class.
    """
    shard_store = ShardStore(root, cache)
    index, digest = shard_store.index()
    train = _split(shard_store, index, digest, scaling, "train")
    test = _split(shard_store, index, digest, scaling.of_test_images, "test")
    labels = Labels(tuple(index.classes), _labels(index, "train"), _labels(index, "test")) if index.classes else None
    if classes and labels is None:
        logger.warning("the images in %s have no classes: data.classes is ignored, all are used", root)
    if classes and labels is not None:
        check_classes(classes, labels.classes, root)
        names = tuple(name for name in labels.classes if name in classes)
        indices = [labels.classes.index(name) for name in names]
        selected = [np.flatnonzero(np.isin(each, indices)) for each in (labels.train, labels.test)]
        train, test = train.part(selected[0]), test.part(selected[1])
        kept = (
            np.searchsorted(indices, each[i]) for each, i in zip((labels.train, labels.test), selected, strict=True)
        )
        labels = Labels(names, *(each.astype(np.int64) for each in kept))
    for part, split in ("training", train), ("test", test):
        if not len(split):
            raise UserError(f"data.root: {root} has no {part} images of these classes: try data.classes all")
    return Source("shards", train, test, labels, digest=digest)


@dataclass(frozen=True, eq=False)
class ShardSplit:
    """Images in shards, in stored order."""

    shard_store: ShardStore
    shards: list[Shard]
    digest: str
    """SHA-256 of the index, which has the checksums of all shards."""
    scaling: Scaling
    where: NDArray[np.int64]
    """Per image: shard (ascending), index in the shard, offset and size in bytes: [N, 4]."""
    damaged: set[int] = field(default_factory=set)
    """Undecodable images that this process has logged."""

    def __len__(self) -> int:
        """Number of images."""
        return len(self.where)

    def __getitem__(self, index: int, /) -> Image:
        """The central crop of an image: uint8 RGB, [size, size, 3]. An undecodable one is logged, and grey."""
        if (image := self.read(index)) is None:
            self.log_damaged([index])
            return self.placeholder()
        return crop(image, self.image_size)

    @property
    def image_size(self) -> int:
        """Side of the crops."""
        return self.scaling.size

    def read(self, index: int) -> Image | None:
        """A scaled image: uint8 RGB, [H, W, 3]. None for an undecodable one.

        Raises RunError if its shard can't be read.
        """
        shard, _, offset, size = self.where[index].tolist()
        try:
            content = self.shard_store.read(self.shards[shard], offset, size)
            return self.scaling(decode(content, self.scaling.shorter))
        except Undecodable:
            return None

    def placeholder(self) -> Image:
        """Replacement of an undecodable image: uniform grey."""
        return np.full((self.image_size, self.image_size, 3), _GREY, np.uint8)

    def log_damaged(self, indices: Sequence[int]) -> None:
        """Log the first few undecodable images by name, once each, and their number at powers of ten."""
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
                logger.warning("%s in %s can't be decoded, and is replaced by grey%s", name, shard.name, more)

    def part(self, indices: NDArray[np.int64]) -> "ShardSplit":
        """A subset of the images. indices: ascending, [n]."""
        return replace(self, where=self.where[indices], damaged=set())

    def shard_sizes(self) -> tuple[int, ...]:
        """Number of images in each shard, without empty shards."""
        return tuple(np.unique(self.where[:, 0], return_counts=True)[1].tolist())


def _split(shard_store: ShardStore, index: Index, digest: str, scaling: Scaling, which: str) -> ShardSplit:
    found = [shard for shard in index.shards if shard.split == which]
    # One array: forked workers share it, while they would copy the objects in a list.
    columns = [
        np.array([np.full(len(shard.keys), number), np.arange(len(shard.keys)), shard.offsets, shard.sizes], np.int64)
        for number, shard in enumerate(found)
    ]
    where = np.concatenate([np.empty((4, 0), np.int64), *columns], axis=1).T
    return ShardSplit(shard_store, found, digest, scaling, np.ascontiguousarray(where))


def _labels(index: Index, which: str) -> NDArray[np.int64]:
    """Class indices, [N]."""
    return np.array([each for shard in index.shards if shard.split == which for each in shard.classes], np.int64)
