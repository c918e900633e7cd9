"""Images in the Arrow files of a dataset: where each lies, and a split that reads them there by row.

By `os.pread`, not through the memory map: a page fault reads ahead, on some machines 8 MB for an image of 10 KB, and an
error of the disk would be a signal instead of a message.
"""

import hashlib
import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from colordist.data.encoded import EncodedSplit, read_unchanged, unreadable
from colordist.data.sources.folder_files import Skipped
from colordist.errors import RunError, printable
from colordist.files.opening import open_regular

_SAMPLE_HASHED = 1_000  # images of each split whose bytes are part of the digest
_MOST_OPEN = 64  # files: a process may have a few hundred
_ABSENT = -1  # instead of a length


@dataclass(frozen=True, eq=False)
class Column:
    """A column of encoded images, or of paths of image files, by the places of its values in Arrow files."""

    files: tuple[str, ...]
    file: NDArray[np.int64]
    """Number of each row's file: [N]."""
    content: NDArray[np.int64]
    """Offset and length of each row's encoded image in the file: [N, 2]. Length -1: none."""
    path: NDArray[np.int64]
    """The same of its path."""
    opened: dict[int, BinaryIO] = field(default_factory=dict)

    @classmethod
    def of(cls, files: Sequence[str], name: str) -> "Column | None":
        """Find a column's values in files of Arrow's stream format; None if they are no images or paths."""
        import pyarrow as pa

        parts: list[NDArray[np.int64]] = []
        for index, name_of_file in enumerate(files):
            with open_regular(name_of_file) as opened:
                mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
            if hasattr(mmap, "MADV_RANDOM"):
                mapped.madvise(mmap.MADV_RANDOM)  # else all of the file is read ahead for a few bytes of each batch
            whole = pa.py_buffer(mapped)
            for chunk in pa.ipc.open_stream(whole).read_all().column(name).chunks:
                places = _places(chunk, whole.address)
                if places is None:
                    return None
                parts.append(np.column_stack([np.full(len(chunk), index), *places]))
        rows = np.concatenate([np.empty((0, 5), np.int64), *parts])
        columns = rows[:, 0], rows[:, 1:3], rows[:, 3:]
        number, encoded, path = (np.ascontiguousarray(each) for each in columns)
        return cls(tuple(files), number, encoded, path)

    def __len__(self) -> int:
        return len(self.file)

    def encoded(self, row: int) -> bytes | None:
        """An encoded image, if the row has one. Raises RunError if it can't be read."""
        return self._read(row, *self.content[row].tolist())

    def file_name(self, row: int) -> str | None:
        """Path of a row's image, if it has one. Raises RunError if it can't be read."""
        path = self._read(row, *self.path[row].tolist())
        return path.decode("utf-8", "surrogateescape") if path else None

    def _read(self, row: int, offset: int, length: int) -> bytes | None:
        if length == _ABSENT:
            return None
        number = int(self.file[row])
        try:
            content = os.pread(self._open(number).fileno(), length, offset)
        except OSError as error:
            raise unreadable(self.files[number], error) from None
        if len(content) < length:
            raise RunError(f"{printable(self.files[number])} is truncated: restore the complete file")
        return content

    def _open(self, number: int) -> BinaryIO:
        if number not in self.opened:
            if len(self.opened) == _MOST_OPEN:
                self.opened.pop(next(iter(self.opened))).close()  # the oldest
            self.opened[number] = open_regular(self.files[number])
        return self.opened[number]

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"opened": {}}

    def lengths(self) -> NDArray[np.int64]:
        """Number of bytes of each row's image: [N]. -1: there is neither an image nor a file."""
        found = self.content[:, 1].copy()
        for row in np.flatnonzero(found == _ABSENT).tolist():
            path = self.file_name(row)
            if path is not None and os.path.isfile(path):
                found[row] = os.stat(path).st_size
        return found


def _places(values: Any, base: int) -> list[NDArray[np.int64]] | None:  # noqa: ANN401  an Arrow array
    """Places of encoded images, and of paths, relative to an address: two of [n, 2]. None for another type."""
    import pyarrow as pa

    if pa.types.is_struct(values.type):
        names = {each.name for each in values.type}
        fields = [values.field(name) if name in names else None for name in ("bytes", "path")]
    elif pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        fields = [None, values]
    else:
        fields = [values, None]
    nothing = np.tile(np.array([0, _ABSENT]), (len(values), 1))
    places = [nothing if each is None or pa.types.is_null(each.type) else _place(each, base) for each in fields]
    found = [each for each in places if each is not None]
    return found if len(found) == 2 and fields != [None, None] else None


def _place(values: Any, base: int) -> NDArray[np.int64] | None:  # noqa: ANN401  an Arrow array
    """Offset and length of each binary value or text: [n, 2]. None for another type."""
    import pyarrow as pa

    is_long = pa.types.is_large_binary(values.type) or pa.types.is_large_string(values.type)
    if not (is_long or pa.types.is_binary(values.type) or pa.types.is_string(values.type)):
        return None
    _, ends, content = values.buffers()
    bounds = np.frombuffer(ends, np.int64 if is_long else np.int32)[values.offset : values.offset + len(values) + 1]
    offsets = bounds.astype(np.int64) + ((content.address if content else base) - base)
    lengths = np.where(values.is_valid().to_numpy(zero_copy_only=False), np.diff(offsets), _ABSENT)
    return np.column_stack([offsets[:-1], lengths])


@dataclass(frozen=True, eq=False, kw_only=True)
class RowSplit(EncodedSplit):
    """Rows of a table, in their order."""

    column: Column
    split: str
    """Name of the split, for the log."""
    rows: NDArray[np.int64]
    """Number of each image's row: [N]."""
    lengths: NDArray[np.int64]
    """Number of bytes of each image at the start: [N]."""

    def __len__(self) -> int:
        """Number of images."""
        return len(self.rows)

    def content(self, index: int) -> bytes:
        """An encoded image. Raises RunError if it can't be read, or its file has another size than at the start."""
        row = int(self.rows[index])
        if (content := self.column.encoded(row)) is not None:
            return content
        path = Path(self.column.file_name(row) or "")
        return read_unchanged(path, int(self.lengths[index]), "when the dataset was opened")

    def name(self, index: int) -> str:
        """Row and file name of an image, for the log."""
        return row_name(self.column, self.split, int(self.rows[index]))

    def part(self, indices: NDArray[np.int64]) -> "RowSplit":
        """A subset of the images. indices: ascending, [n]."""
        return replace(self, rows=self.rows[indices], lengths=self.lengths[indices], damaged=set())


def row_name(column: Column, split: str, row: int) -> str:
    """For instance 'row 17 of train (a.jpg)'."""
    path = column.file_name(row)
    return f"row {row} of {split}" + (f" ({printable(os.path.basename(path))})" if path else "")


def usable(column: Column, split: str, lengths: NDArray[np.int64]) -> tuple[NDArray[np.int64], Skipped]:
    """Rows with an image, [n], and the others by reason. Decodes nothing."""
    skipped: Skipped = {}
    for row in np.flatnonzero(lengths <= 0).tolist():
        reason = "missing file" if column.file_name(row) else "without an image"
        skipped.setdefault("empty" if lengths[row] == 0 else reason, []).append(row_name(column, split, row))
    return np.flatnonzero(lengths > 0), skipped


def digest(splits: Sequence[RowSplit]) -> str:
    """Digest of the images: the length of each one, and the bytes of a fixed sample of each split."""
    found = hashlib.blake2b(digest_size=8)
    for split in splits:
        found.update(len(split).to_bytes(8, "little") + split.lengths.astype("<i8").tobytes())
        for index in np.unique(np.linspace(0, len(split) - 1, _SAMPLE_HASHED).astype(np.int64)).tolist():
            found.update(split.content(index))
    return found.hexdigest()
