"""The source `folder`: any folder of photos, decoded once and cached."""

import hashlib
import logging
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from colordist.data.decode import Scaling, Undecodable, decode
from colordist.data.source import (
    FlatSplit,
    Image,
    ImageSource,
    Source,
    Split,
    StreamedDataConfig,
    cache_folder,
)
from colordist.data.sources import folder_cache
from colordist.data.sources.folder_cache import Content
from colordist.data.sources.folder_files import (
    Found,
    find,
    list_skipped,
    listing_digest,
    merge,
    name_hash,
    on_all_cores,
    read_and_split,
)
from colordist.data.sources.folder_stream import FolderSplit, training_bytes
from colordist.errors import RunError, UserError
from colordist.files.opening import NotRegular, open_regular
from colordist.files.paths import expanded
from colordist.ranges import at_least, in_range

logger = logging.getLogger(__name__)

_MOST_HASHED, _SAMPLE_HASHED = 100_000, 1_000  # files whose bytes are read for the digest
_NEAR_GREY = 3.0  # mean chroma of a grey photo whose JPEG compression left a tint, or of a toned one


@dataclass(frozen=True, kw_only=True)
class FolderSettings(StreamedDataConfig):
    """A folder of photographs."""

    operational: ClassVar[frozenset[str]] = StreamedDataConfig.operational | {"max_memory_gb"}

    max_memory_gb: float = 8.0
    """Decoded training images, before `data.fraction`, up to this size are held on the device; of more, workers decode
    those of each step."""
    min_chroma: float = 0.0
    """Leave out training images of less mean chroma, max(R,G,B) - min(R,G,B): 0 is grey, 255 the most; try 3."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("data.max_memory_gb", self.max_memory_gb, 0)
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
        return folder(
            Path(settings.root),
            settings.class_names,
            Scaling.of(settings),
            cache_folder(),
            min_chroma=settings.min_chroma,
            max_memory=settings.max_memory_gb * 10**9,
        )

    def listing(self) -> str:
        """Digest of the images' relative names and sizes."""
        found = find(expanded(self.settings.root), self.settings.class_names)
        return listing_digest([(file.name, file.stamp[0]) for file in found.files])

    def training_bytes(self) -> int | None:
        """Estimated size of the decoded training images that are held on the device; 0 if they are streamed."""
        settings: FolderSettings = self.settings
        if self.missing():
            return None
        found = find(expanded(settings.root), settings.class_names)
        size = training_bytes(found, Scaling.of(settings))
        return round(size * settings.fraction) if size <= settings.max_memory_gb * 10**9 else 0

    def missing(self) -> str:
        """Why the images are unavailable; empty if they are there."""
        root = expanded(self.settings.root)
        return "" if root.is_dir() else f"there is no folder {root}"


def folder(
    root: Path,
    classes: tuple[str, ...] | None,
    scaling: Scaling,
    cache: Path | None,
    *,
    min_chroma: float = 0.0,
    max_memory: float = float("inf"),
) -> Source:
    """Read all photos below a folder, scaled, in the order of their names.

    root: with train/ and test/; else a tenth of the images, selected by a hash of the name, is the test split.
    classes: names of subfolders (of train/ and test/, or of root) to read; None for all images.
    scaling: of training images; test images are cropped at the centre.
    cache: folder for the decoded images; None for no cache. Invalidated by any change of a file's name, size or
        modification time. Safe for concurrent processes.
    min_chroma: training images with a mean chroma below this are left out.
    max_memory: if decoded training images have more bytes, about, they are streamed: the first start decodes them only
        to find unusable files and their chroma, which the cache keeps.

    Unusable files are skipped and logged. Raises UserError if there is no such folder or class, or no usable image for
    one of the splits.
    """
    root = expanded(root)
    found = find(root, classes)
    streamed = training_bytes(found, scaling) > max_memory
    content = _cached(root, found, scaling, cache, streamed=streamed)
    _report(root, content, found, streamed=streamed)
    kept = _colorful(root, content.chroma, min_chroma)
    images = FlatSplit.of(content.pixels, content.sizes, scaling.size)
    test = images.part(np.arange(len(images) - len(content.test), len(images)))
    train: Split
    if streamed:
        train = FolderSplit.of(root, [found.files[content.train[each]] for each in kept], content.digest, scaling)
    else:
        train = images.part(kept)
    return Source("folder", train, test, digest=content.digest)


# Reading


def _cached(root: Path, found: Found, scaling: Scaling, cache: Path | None, *, streamed: bool) -> Content:
    """Read the cache, or all files."""
    if cache is None:
        return _read(root, found, scaling, streamed=streamed)
    stem = folder_cache.cache_stem(cache, root, found.files, scaling, streamed=streamed)
    load = partial(folder_cache.load, stem, len(found.files), streamed=streamed)
    if (content := load()) is None:
        content = _read(root, found, scaling, streamed=streamed)
        if folder_cache.store(stem, content):
            content = load() or content  # memory-mapped: shared between processes
    return content


def _read(root: Path, found: Found, scaling: Scaling, *, streamed: bool) -> Content:
    """Decode all files, on all cores. streamed: without keeping training images."""
    images, chroma, digests = dict[int, Image](), dict[int, float](), dict[str, str]()
    hashed = _to_be_hashed([file.name for file in found.files])

    def read(index: int) -> None:
        file = found.files[index]
        if file.name in hashed:
            # Decoding says what is wrong with a file that can't be opened.
            with suppress(OSError, NotRegular), open_regular(file.path) as opened:
                digests[file.name] = hashlib.file_digest(opened, "blake2b").hexdigest()
        image = scaling(decode(file.path, scaling.shorter))
        chroma[index] = mean_chroma(image)
        if not streamed:
            images[index] = image

    train, test, skipped = read_and_split(root, found, read)
    if streamed or scaling.whole:  # only now it is known which files are for testing
        images |= _decode(found, test, scaling.of_test_images)
    decoded = [images[index] for index in (test if streamed else train + test)]
    return Content(
        train=train,
        test=test,
        chroma=[chroma[index] for index in train],
        skipped=skipped,
        digest=listing_digest([(file.name, file.stamp[0], digests.get(file.name)) for file in found.files]),
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

    return dict(zip(indices, on_all_cores(decoded, indices), strict=True))


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


# Logging


def _report(root: Path, content: Content, found: Found, *, streamed: bool) -> None:
    rule = "folders train/ and test/" if found.has_split_folders else "split by name"
    counts = f"{len(content.train)} training and {len(content.test)} test images"
    logger.info("%s: %s (%s), %d other files ignored", root, counts, rule, found.others)
    if streamed:
        logger.info("%s: too large for data.max_memory_gb, so training images are decoded by data.workers", root)
    if skipped := merge(found.skipped, content.skipped):
        logger.warning("%s: skipped %s", root, list_skipped(skipped))
