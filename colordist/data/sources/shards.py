"""The source `shards`: images packed into tar files by ``python -m colordist.data.pack``, read by index.

Only the test split has to fit into memory. Packing shuffles the training images, so the first ones are a random sample.
"""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from colordist.config import UserError, at_least
from colordist.data.decode import Scaling
from colordist.data.encoded import EncodedSplit
from colordist.data.source import ImageSource, Source, StreamedDataConfig, cache_folder, check_classes
from colordist.data.sources.folder_files import printable
from colordist.data.sources.shard_index import Index, Shard
from colordist.data.sources.shard_store import ShardStore

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ShardSettings(StreamedDataConfig):
    """Shards in a folder or at an http(s) URL."""

    shuffle_shards: int = 8
    """Shards shuffled together; all of them: a full shuffle."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("data.shuffle_shards", self.shuffle_shards, 1)
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
    if classes and not index.classes:
        logger.warning("the images in %s have no classes: data.classes is ignored, all are used", root)
    elif classes:
        check_classes(classes, index.classes, root)
        indices = [index.classes.index(name) for name in classes]
        train, test = (
            split.part(np.flatnonzero(np.isin(_classes(index, which), indices)))
            for which, split in (("train", train), ("test", test))
        )
    for part, split in ("training", train), ("test", test):
        if not len(split):
            raise UserError(f"data.root: {root} has no {part} images of these classes: try data.classes all")
    return Source("shards", train, test, digest=digest)


@dataclass(frozen=True, eq=False, kw_only=True)
class ShardSplit(EncodedSplit):
    """Images in shards, in stored order. Their digest is the SHA-256 of the index, which has all shards' checksums."""

    shard_store: ShardStore
    shards: list[Shard]
    where: NDArray[np.int64]
    """Per image: shard (ascending), index in the shard, offset and size in bytes: [N, 4]."""

    def __len__(self) -> int:
        """Number of images."""
        return len(self.where)

    def content(self, index: int) -> bytes:
        """An encoded image. Raises RunError if its shard can't be read."""
        shard, _, offset, size = self.where[index].tolist()
        return self.shard_store.read(self.shards[shard], offset, size)

    def name(self, index: int) -> str:
        """Name of an image, for the log."""
        number, row = self.where[index, :2].tolist()
        shard = self.shards[number]
        return f"{printable(str(shard.keys[row]))} in {shard.name}"

    def part(self, indices: NDArray[np.int64]) -> "ShardSplit":
        """A subset of the images. indices: ascending, [n]."""
        return replace(self, where=self.where[indices], damaged=set())

    def shard_sizes(self) -> tuple[int, ...]:
        """Number of images in each shard, without empty shards."""
        return tuple(np.unique(self.where[:, 0], return_counts=True)[1].tolist())


def _split(shard_store: ShardStore, index: Index, digest: str, scaling: Scaling, which: str) -> ShardSplit:
    found = [shard for shard in index.shards if shard.split == which]
    columns = [
        np.array([np.full(len(shard.keys), number), np.arange(len(shard.keys)), shard.offsets, shard.sizes], np.int64)
        for number, shard in enumerate(found)
    ]
    where = np.concatenate([np.empty((4, 0), np.int64), *columns], axis=1).T
    where = np.ascontiguousarray(where)
    return ShardSplit(digest=digest, scaling=scaling, shard_store=shard_store, shards=found, where=where)


def _classes(index: Index, which: str) -> NDArray[np.int64]:
    """Class indices, [N]."""
    return np.array([each for shard in index.shards if shard.split == which for each in shard.classes], np.int64)
