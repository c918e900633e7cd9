"""The source `folder`: any folder of photos, decoded once and cached."""

import hashlib
import json
import logging
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from colordist.config import FileDataConfig, RunError, UserError, in_range
from colordist.data.decode import Scaling, Undecodable, decode
from colordist.data.source import FlatSplit, Image, ImageSource, Labels, Source, cache_folder
from colordist.data.sources import folder_cache
from colordist.data.sources.folder_cache import Content
from colordist.data.sources.folder_files import (
    Found,
    class_of,
    find,
    list_skipped,
    merge,
    name_hash,
    read_and_split,
)

logger = logging.getLogger(__name__)

_MOST_HASHED, _SAMPLE_HASHED = 100_000, 1_000  # files whose bytes are read for the digest
_NEAR_GREY = 3.0  # mean chroma of a grey photo whose JPEG compression left a tint, or of a toned one


@dataclass(frozen=True, kw_only=True)
class FolderSettings(FileDataConfig):
    """A folder of photographs."""

    min_chroma: float = 0.0
    """Leave out training images of less mean chroma, max(R,G,B) - min(R,G,B): 0 is grey, 255 the most; try 3."""

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range("data.min_chroma", self.min_chroma, 0, 255)


class FolderSource(ImageSource):
    """A folder of photographs."""

    Settings = FolderSettings
    description = (
        "a folder of images. Their content, origin, licence and JPEG compression, which blurs colours, are not recorded"
    )

    def open(self) -> Source:
        """Decode the images, or read them from the cache."""
        settings: FolderSettings = self.settings
        scaling, cache = Scaling.of(settings), cache_folder()
        return folder(Path(settings.root), settings.class_names, scaling, cache, settings.min_chroma)

    def listing(self) -> str:
        """Digest of the images' relative names and sizes."""
        found = find(Path(self.settings.root).expanduser(), self.settings.class_names)
        return _listing_digest([(file.name, file.stamp[0]) for file in found.files])

    def missing(self) -> str:
        """Why the images are unavailable; empty if they are there."""
        root = Path(self.settings.root).expanduser()
        return "" if root.is_dir() else f"there is no folder {root}"


def folder(
    root: Path, classes: tuple[str, ...] | None, scaling: Scaling, cache: Path | None, min_chroma: float = 0.0
) -> Source:
    """Read all photos below a folder, scaled, in the order of their names.

    root: with train/ and test/; else a tenth of the images, selected by a hash of the name, is the test split.
    classes: names of subfolders (of train/ and test/, or of root) to read; None for all images.
    scaling: of training images; test images are cropped at the centre.
    cache: folder for the decoded images; None for no cache. Invalidated by any change of a file's name, size or
        modification time. Safe for concurrent processes.
    min_chroma: training images with a mean chroma below this are left out.

    Unusable files are skipped and logged. Raises UserError if there is no such folder or class, or no usable image for
    one of the splits.
    """
    root = root.expanduser()
    found = find(root, classes)
    stem = folder_cache.cache_stem(cache, root, found.files, scaling) if cache else None
    content = folder_cache.load(stem) if stem else None
    if content is None:
        content = _read(root, found, scaling)
        if stem and folder_cache.store(stem, content):
            content = folder_cache.load(stem) or content  # memory-mapped: shared between processes
    _report(root, content, found)
    kept = _colorful(root, content.chroma, min_chroma)
    images = FlatSplit.of(content.pixels, content.sizes, scaling.size)
    train, test = np.split(np.arange(len(images)), [len(content.train)])
    labels = _labels(content, found, kept)
    return Source("folder", images.part(train[kept]), images.part(test), labels, digest=content.digest)


# Reading


def _read(root: Path, found: Found, scaling: Scaling) -> Content:
    """Decode all files, on all cores."""
    images, digests = dict[int, Image](), dict[str, str]()
    hashed = _to_be_hashed([file.name for file in found.files])

    def read(index: int) -> None:
        file = found.files[index]
        if file.name in hashed and file.path.is_file():
            with file.path.open("rb") as opened:
                digests[file.name] = hashlib.file_digest(opened, "blake2b").hexdigest()
        images[index] = scaling(decode(file.path, scaling.shorter))

    train, test, skipped = read_and_split(root, found, read)
    if scaling.whole:  # which file is for testing was unknown
        images |= _decode(found, test, scaling.of_test_images)
    decoded = [images[index] for index in train + test]
    return Content(
        train=train,
        test=test,
        chroma=[mean_chroma(images[index]) for index in train],
        skipped=skipped,
        digest=_listing_digest([(file.name, file.stamp[0], digests.get(file.name)) for file in found.files]),
        sizes=np.array([image.shape[:2] for image in decoded], np.int64),
        pixels=np.concatenate([image.reshape(-1, 3) for image in decoded]),
    )


def _decode(found: Found, indices: list[int], scaling: Scaling) -> dict[int, Image]:
    """Decode files that were decoded before."""

    def decoded(index: int) -> Image:
        path = found.files[index].path
        try:
            return scaling(decode(path, scaling.shorter))
        except Undecodable as error:
            raise RunError(f"{path} can't be read any more ({error.reason}): start again") from None

    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.simplefilter("ignore")
        return dict(zip(indices, pool.map(decoded, indices), strict=True))


def mean_chroma(image: Image) -> float:
    """Mean over pixels of max(R, G, B) - min(R, G, B), in 8 bits: from 0 for grey to 255.

    The sum is of integers, so it is the same on every machine.
    """
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    chroma = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    return int(chroma.sum(dtype=np.int64)) / chroma.size


def _to_be_hashed(names: list[str]) -> set[str]:
    """Files whose bytes are part of the digest: all; of more than _MOST_HASHED a sample that depends on names only."""
    if len(names) <= _MOST_HASHED:
        return set(names)
    return set(sorted(names, key=name_hash)[:_SAMPLE_HASHED])


def _listing_digest(rows: list[tuple[object, ...]]) -> str:
    return hashlib.blake2b(json.dumps(rows).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def _colorful(root: Path, chroma: list[float], least: float) -> NDArray[np.int64]:
    """Training images with at least this mean chroma, as indices. Logs how many are nearly grey, and are left out.

    Raises UserError if none is left.
    """
    kept = np.flatnonzero(np.array(chroma) >= least)
    total, left_out, near_grey = len(chroma), len(chroma) - len(kept), sum(each < _NEAR_GREY for each in chroma)
    if not len(kept):
        raise UserError(
            f"data.min_chroma is {least:g}, but no training image in {root} has more than {max(chroma):.1f}: "
            f"try data.min_chroma {_NEAR_GREY if max(chroma) >= _NEAR_GREY else 0:g}"
        )
    if near_grey:
        way_out = f"data.min_chroma {least:g} leaves out {left_out}" if least else "data.min_chroma 3 leaves them out"
        logger.log(
            logging.INFO if least >= _NEAR_GREY else logging.WARNING,
            "%s: %d of %d training images are nearly grey (mean chroma below %g), and teach grey answers; %s",
            *(root, near_grey, total, _NEAR_GREY, way_out),
        )
    elif left_out:
        logger.info("%s: data.min_chroma %g leaves out %d of %d training images", root, least, left_out, total)
    return kept


def _labels(content: Content, found: Found, kept: NDArray[np.int64]) -> Labels | None:
    """Class labels, if every image lies in a class folder. kept: the training images to use."""
    train, test = (
        [class_of(found.files[index].name, found.has_split_folders) for index in part]
        for part in (content.train, content.test)
    )
    names = sorted({*train, *test})
    if "" in names:
        return None
    train_labels, test_labels = (np.searchsorted(names, part).astype(np.int64) for part in (train, test))
    return Labels(tuple(names), train_labels[kept], test_labels)


# Logging


def _report(root: Path, content: Content, found: Found) -> None:
    rule = "folders train/ and test/" if found.has_split_folders else "split by name"
    counts = f"{len(content.train)} training and {len(content.test)} test images"
    logger.info("%s: %s (%s), %d other files ignored", root, counts, rule, found.others)
    if skipped := merge(found.skipped, content.skipped):
        logger.warning("%s: skipped %s", root, list_skipped(skipped))
