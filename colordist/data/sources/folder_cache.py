"""The cache of the source `folder`: STEM.npy with decoded images, STEM.json with the rest.

Both are a function of the key in the stem, so any of several processes may write them.
"""

import hashlib
import json
import logging
import os
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL
from numpy.typing import NDArray

from colordist.data.decode import Scaling
from colordist.data.sources.folder_files import File, Skipped
from colordist.files.opening import NotRegular, open_regular

logger = logging.getLogger(__name__)

_VERSION = 4  # raise it when decoding, the split or the layout of the cache changes


@dataclass(frozen=True)
class Content:
    """Result of reading a folder. Images are named by their index into ``Found.files``."""

    train: list[int]
    test: list[int]
    chroma: list[float]
    """Mean chroma of each training image."""
    skipped: Skipped
    digest: str
    """Digest of the files' names and bytes."""
    sizes: NDArray[np.int64]
    """Height and width of the decoded images, first those for training, unless they are streamed: [N, 2]."""
    pixels: NDArray[np.uint8]
    """RGB of the decoded images, one after the other: [P, 3]."""


def cache_stem(cache: Path, root: Path, files: list[File], scaling: Scaling, *, streamed: bool) -> Path:
    """Path of the cache of these images, without extension. streamed: without training images."""
    stamps = [(file.name, file.stamp) for file in files]
    key = [
        _VERSION,
        PIL.__version__,
        str(root.resolve()),
        scaling.size,
        scaling.shorter,
        scaling.whole,
        streamed,
        stamps,
    ]
    return cache.expanduser() / hashlib.blake2b(json.dumps(key).encode(), digest_size=16).hexdigest()


def load(stem: Path) -> Content | None:
    """Load the cache, with memory-mapped images; None if it is missing or damaged."""
    try:
        with open_regular(stem.with_suffix(".json")) as opened:
            about = json.loads(opened.read())
        crc32 = about.pop("crc32")
        with open_regular(stem.with_suffix(".npy")) as opened:
            pixels = _mapped(opened)
        sizes = np.array(about.pop("sizes"), np.int64).reshape(-1, 2)
        complete = pixels.dtype == np.uint8 and pixels.shape == (sizes.prod(axis=1).sum(), 3)
        if complete and zlib.crc32(pixels.data) == crc32:
            return Content(**about, sizes=sizes, pixels=pixels)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, NotRegular, EOFError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    logger.warning("the cache %s is damaged: reading the images again", stem.with_suffix(".npy"))
    return None


def _mapped(file: BinaryIO) -> NDArray[np.uint8]:
    """Map the array in an opened .npy file into memory. Raises ValueError for another version than ``store`` writes."""
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("another version")
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if is_fortran or dtype != np.uint8:
        raise ValueError("another array")
    return np.asarray(np.memmap(file, dtype, "r", file.seek(0, os.SEEK_CUR), shape))


def store(stem: Path, content: Content) -> bool:
    """Write the cache. Returns whether that worked: training can do without."""
    about = asdict(content) | {"sizes": content.sizes.tolist(), "crc32": zlib.crc32(content.pixels.data)}
    del about["pixels"]
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        _write(stem.with_suffix(".npy"), lambda file: np.save(file, content.pixels))
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
