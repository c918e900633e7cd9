"""The source `folder`: any folder of photos, decoded once into one cached array."""

import hashlib
import json
import logging
import os
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL
from numpy.typing import NDArray

from colordist.config import FileDataConfig
from colordist.data.decode import decode, fit
from colordist.data.source import ArraySplit, ImageSource, Labels, Source, cache_folder
from colordist.data.sources.folder_files import (
    File,
    Found,
    Skipped,
    class_of,
    find,
    list_skipped,
    merge,
    name_hash,
    read_and_split,
)

logger = logging.getLogger(__name__)

_MOST_HASHED, _SAMPLE_HASHED = 100_000, 1_000  # files whose bytes are read for the digest
_CACHE_VERSION = 3  # raise it when decoding, the split or the layout of the cache changes


class FolderSource(ImageSource):
    """A folder of photographs."""

    Settings = FileDataConfig
    description = (
        "a folder of images. Their content, origin, licence and JPEG compression, which blurs colours, are not recorded"
    )

    def open(self) -> Source:
        """Decode the images, or read them from the cache."""
        settings: FileDataConfig = self.settings
        return folder(Path(settings.root), settings.class_names, settings.image_size, cache_folder())

    def listing(self) -> str:
        """Digest of the images' relative names and sizes."""
        found = find(Path(self.settings.root).expanduser(), self.settings.class_names)
        return _listing_digest([(file.name, file.stamp[0]) for file in found.files])

    def missing(self) -> str:
        """Why the images are unavailable; empty if they are there."""
        root = Path(self.settings.root).expanduser()
        return "" if root.is_dir() else f"there is no folder {root}"


def folder(root: Path, classes: tuple[str, ...] | None, image_size: int, cache: Path | None) -> Source:
    """Read all photos below a folder, scaled and cropped to squares, in the order of their names.

    root: with train/ and test/; else a tenth of the images, selected by a hash of the name, is the test split.
    classes: names of subfolders (of train/ and test/, or of root) to read; None for all images.
    image_size: side of the squares in pixels.
    cache: folder for the decoded images; None for no cache. Invalidated by any change of a file's name, size or
        modification time. Safe for concurrent processes.

    Unusable files are skipped and logged. Raises UserError if there is no such folder or class, or no usable image for
    one of the splits.
    """
    root = root.expanduser()
    found = find(root, classes)
    stem = cache.expanduser() / _cache_key(root, found.files, image_size) if cache else None
    content = _load(stem, image_size) if stem else None
    if content is None:
        content = _read(root, found, image_size)
        if stem and _store(stem, content):
            content = _load(stem, image_size) or content  # memory-mapped: shared between processes
    _report(root, content, found)
    train, test = np.split(content.images, [content.train])
    return Source("folder", ArraySplit(train), ArraySplit(test), _labels(content), digest=content.digest)


# Reading


@dataclass(frozen=True)
class _Content:
    images: NDArray[np.uint8]  # RGB [N, size, size, 3], the training images first
    train: int  # number of training images
    colourless: int  # training images with R == G == B everywhere
    classes: list[str]  # class name of each image; "" outside of class folders
    skipped: Skipped
    digest: str  # of the files' names and bytes


def _read(root: Path, found: Found, size: int) -> _Content:
    """Decode all files, on all cores."""
    images = np.empty((len(found.files), size, size, 3), np.uint8)
    digests = dict[str, str]()
    hashed = _to_be_hashed([file.name for file in found.files])

    def read(index: int) -> None:
        file = found.files[index]
        if file.name in hashed and file.path.is_file():
            with file.path.open("rb") as opened:
                digests[file.name] = hashlib.file_digest(opened, "blake2b").hexdigest()
        images[index] = fit(decode(file.path, size), size)

    train, test, skipped = read_and_split(root, found, read)
    images = images[train + test]
    colourless = sum(bool((image == image[..., :1]).all()) for image in images[: len(train)])
    classes = [class_of(found.files[index].name, found.has_split_folders) for index in train + test]
    digest = _listing_digest([(file.name, file.stamp[0], digests.get(file.name)) for file in found.files])
    return _Content(images, len(train), colourless, classes, skipped, digest)


def _to_be_hashed(names: list[str]) -> set[str]:
    """Files whose bytes are part of the digest: all; of more than _MOST_HASHED a sample that depends on names only."""
    if len(names) <= _MOST_HASHED:
        return set(names)
    return set(sorted(names, key=name_hash)[:_SAMPLE_HASHED])


def _listing_digest(rows: list[tuple[object, ...]]) -> str:
    return hashlib.blake2b(json.dumps(rows).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def _labels(content: _Content) -> Labels | None:
    """Class labels, if every image lies in a class folder."""
    names = sorted(set(content.classes))
    if "" in names:
        return None
    labels = np.searchsorted(names, content.classes).astype(np.int64)
    return Labels(tuple(names), labels[: content.train], labels[content.train :])


# Logging


def _report(root: Path, content: _Content, found: Found) -> None:
    rule = "folders train/ and test/" if found.has_split_folders else "split by name"
    counts = f"{content.train} training and {len(content.images) - content.train} test images"
    logger.info("%s: %s (%s), %d other files ignored", root, counts, rule, found.others)
    if skipped := merge(found.skipped, content.skipped):
        logger.warning("%s: skipped %s", root, list_skipped(skipped))
    if content.colourless:
        logger.warning(
            "%s: %d of %d training images are grey; they are kept, but there are no colours to learn from them",
            root,
            content.colourless,
            content.train,
        )


# The cache: STEM.npy with the images, STEM.json with the rest. Both are a function of the key in the stem, so any of
# several processes may write them.


def _cache_key(root: Path, files: list[File], size: int) -> str:
    key = [_CACHE_VERSION, PIL.__version__, str(root.resolve()), size, [(file.name, file.stamp) for file in files]]
    return hashlib.blake2b(json.dumps(key).encode(), digest_size=16).hexdigest()


def _load(stem: Path, size: int) -> _Content | None:
    """Load the cache, with memory-mapped images; None if it is missing or damaged."""
    try:
        about = json.loads(stem.with_suffix(".json").read_text("utf-8"))
        images = np.asarray(np.load(stem.with_suffix(".npy"), mmap_mode="r"))
        complete = images.dtype == np.uint8 and images.shape == (about["images"], size, size, 3)
        if complete and zlib.crc32(images.data) == about["crc32"]:
            return _Content(
                images, about["train"], about["colourless"], about["classes"], about["skipped"], about["digest"]
            )
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        pass
    logger.warning("the cache %s is damaged: reading the images again", stem.with_suffix(".npy"))
    return None


def _store(stem: Path, content: _Content) -> bool:
    """Write the cache. Returns whether that worked: training can do without."""
    about = {
        "images": len(content.images),
        "train": content.train,
        "colourless": content.colourless,
        "classes": content.classes,
        "skipped": content.skipped,
        "digest": content.digest,
        "crc32": zlib.crc32(content.images.data),
    }
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        _write(stem.with_suffix(".npy"), lambda file: np.save(file, content.images))
        _write(stem.with_suffix(".json"), lambda file: file.write(json.dumps(about).encode()))
    except OSError as error:
        logger.warning("cannot cache the decoded images in %s (%s): the next start will be as slow", stem.parent, error)
        return False
    return True


def _write(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file atomically, also with concurrent writers."""
    descriptor, scratch = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
    try:
        with open(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except BaseException:
        os.unlink(scratch)
        raise
