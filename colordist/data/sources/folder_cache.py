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
from typing import Annotated, BinaryIO

import msgspec
import numpy as np
import PIL
from numpy.typing import NDArray

from colordist.data.decode import Scaling
from colordist.data.sources.folder_files import File, Skipped
from colordist.files.documents import parse_plain_json
from colordist.files.opening import NotRegular, TooLarge, open_regular, read_regular
from colordist.files.paths import expanded

logger = logging.getLogger(__name__)

_VERSION = 4  # raise it when decoding, the split or the layout of the cache changes


_MOST_BYTES = 2**32  # of STEM.json: about 60 for each image
_Index = Annotated[int, msgspec.Meta(ge=0)]
_Side = Annotated[int, msgspec.Meta(ge=1, le=2**20)]


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
    return expanded(cache) / hashlib.blake2b(json.dumps(key).encode(), digest_size=16).hexdigest()


class _About(msgspec.Struct):
    """The content of STEM.json: as of ``Content``."""

    train: list[_Index]
    test: list[_Index]
    chroma: list[float]
    skipped: Skipped
    digest: str
    sizes: list[tuple[_Side, _Side]]
    crc32: int
    """Checksum of the pixels."""

    def fits(self, files: int, *, streamed: bool) -> bool:
        """Whether it is of this number of files."""
        images = self.test if streamed else self.train + self.test
        in_range = max([*self.train, *self.test], default=0) < files
        return in_range and len(self.chroma) == len(self.train) and len(self.sizes) == len(images)


def load(stem: Path, files: int, *, streamed: bool) -> Content | None:
    """Load the cache of this number of files, with memory-mapped images; None if it is missing or damaged."""
    try:
        about = parse_plain_json(read_regular(stem.with_suffix(".json"), _MOST_BYTES), _About)
        with open_regular(stem.with_suffix(".npy")) as opened:
            pixels = _mapped(opened)
        sizes = np.array(about.sizes, np.int64).reshape(-1, 2)
        complete = pixels.dtype == np.uint8 and pixels.shape == (sizes.prod(axis=1).sum(), 3)
        if complete and about.fits(files, streamed=streamed) and zlib.crc32(pixels.data) == about.crc32:
            return Content(about.train, about.test, about.chroma, about.skipped, about.digest, sizes, pixels)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, EOFError, ValueError, TypeError, NotRegular, TooLarge):  # Malformed is a ValueError
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
