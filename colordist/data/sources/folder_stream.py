"""Training images of a folder that are read during training, and how much memory they would take."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from colordist.data.decode import Scaling, Undecodable, stored_size, whole_size
from colordist.data.encoded import EncodedSplit, read_unchanged
from colordist.data.sources.folder_files import TEST_SHARE, File, Found, name_hash, on_all_cores, printable

_SAMPLE = 1000  # files whose headers are read


@dataclass(frozen=True, eq=False, kw_only=True)
class FolderSplit(EncodedSplit):
    """Images below a folder, in the order of their names."""

    root: Path
    names: NDArray[np.bytes_]
    """Paths below root: [N]."""
    lengths: NDArray[np.int64]
    """Number of bytes of each file at the start: [N]."""

    @classmethod
    def of(cls, root: Path, files: Sequence[File], digest: str, scaling: Scaling) -> "FolderSplit":
        """The images in some files below a folder."""
        names = np.array([os.fsencode(file.path.relative_to(root)) for file in files], np.bytes_)
        lengths = np.array([file.stamp[0] for file in files], np.int64)
        return cls(digest=digest, scaling=scaling, root=root, names=names, lengths=lengths)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.names)

    def content(self, index: int) -> bytes:
        """An encoded image. Raises RunError if it can't be read, or has another size than at the start."""
        path = self.root / os.fsdecode(self.names[index])
        return read_unchanged(path, int(self.lengths[index]), "when the images were read")

    def name(self, index: int) -> str:
        """Name of an image, for the log."""
        return printable(os.fsdecode(self.names[index]))

    def part(self, indices: NDArray[np.int64]) -> "FolderSplit":
        """A subset of the images. indices: ascending, [n]."""
        return replace(self, names=self.names[indices], lengths=self.lengths[indices], damaged=set())


def training_bytes(found: Found, scaling: Scaling) -> int:
    """Estimate the decoded size of the training images from the headers of a sample of files."""
    if found.has_split_folders:
        files = [file for file in found.files if not file.name.startswith("test/")]
        count = len(files)
    else:
        files, count = found.files, round((1 - TEST_SHARE) * len(found.files))
    pixels = scaling.size**2
    if scaling.whole:
        sample = sorted(files, key=lambda file: name_hash(file.name))[:_SAMPLE]
        counts = [each for each in on_all_cores(lambda file: _pixels(file.path, scaling), sample) if each]
        pixels = round(float(np.mean(counts))) if counts else pixels
    return 3 * pixels * count


def _pixels(path: Path, scaling: Scaling) -> int | None:
    """Number of pixels of an image kept whole; None if its header can't be read."""
    try:
        width, height = whole_size(*stored_size(path), scaling.shorter)
    except Undecodable:
        return None
    return width * height
