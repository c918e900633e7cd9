"""Base class of streamed splits: encoded images, read and decoded on access."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from colordist.data.crops import crop
from colordist.data.decode import Scaling, Undecodable, decode
from colordist.data.source import Image
from colordist.errors import RunError, printable
from colordist.files.opening import NotRegular, open_regular

logger = logging.getLogger(__name__)

_NAMES_SHOWN = 5
_GREY = 128  # replaces an image that can't be decoded


def unreadable(path: str | Path, error: OSError) -> RunError:
    """One line for a file that can't be read."""
    return RunError(
        f"{printable(str(path))} can't be read ({error.strerror}): once it can be, the same command continues"
    )


def read_unchanged(path: Path, length: int, then: str) -> bytes:
    """Read a file. Raises RunError if it can't be read, or has another number of bytes than then, as "when ..."."""
    try:
        with open_regular(path) as opened:
            content, found = opened.read(length), os.fstat(opened.fileno()).st_size
    except NotRegular as error:
        raise RunError(str(error)) from None
    except OSError as error:
        raise unreadable(path, error) from None
    if not found == len(content) == length:
        raise RunError(
            f"{printable(str(path))} has {found} bytes, but had {length} {then}: restore it, and the same "
            "command continues"
        )
    return content


@dataclass(frozen=True, eq=False, kw_only=True)
class EncodedSplit:
    """Encoded images, decoded on access. Derived classes say where their bytes are.

    These should be in arrays: forked workers share an array, while they would copy the objects in a list.
    """

    digest: str
    """Digest of the images and their order."""
    scaling: Scaling
    damaged: set[int] = field(default_factory=set)
    """Undecodable images that this process has logged."""

    def content(self, index: int) -> bytes:
        """An encoded image. Raises RunError if it can't be read."""
        raise NotImplementedError

    def name(self, index: int) -> str:
        """Name of an image, for the log."""
        raise NotImplementedError

    @property
    def image_size(self) -> int:
        """Side of the crops."""
        return self.scaling.size

    def __getitem__(self, index: int, /) -> Image:
        """The central crop of an image: uint8 RGB, [size, size, 3]. An undecodable one is logged, and grey."""
        if (image := self.read(index)) is None:
            self.log_damaged([index])
            return self.placeholder()
        return crop(image, self.image_size)

    def read(self, index: int) -> Image | None:
        """A scaled image: uint8 RGB, [H, W, 3]. None for an undecodable one. Raises RunError if it can't be read."""
        try:
            return self.scaling(decode(self.content(index), self.scaling.shorter))
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
                more = "; further ones are only counted" if len(self.damaged) == _NAMES_SHOWN else ""
                logger.warning("%s can't be decoded, and is replaced by grey%s", self.name(index), more)
