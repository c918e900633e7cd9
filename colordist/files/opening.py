"""Open files that a stranger may have put there: only here, and never anything but a regular file.

A FIFO would make the reader wait for a writer, a device may never end, and opening one may change its state.
"""

import os
import stat
from contextlib import suppress
from io import BufferedReader
from pathlib import Path

from colordist.errors import UserError, printable

MOST_BYTES = 2**20
"""Size in bytes above which a document of JSON or YAML isn't read."""
_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class NotRegular(UserError):
    """A path is a pipe, a socket or a device, where a file is expected."""


class TooLarge(UserError):
    """A file is larger than files of its kind ever are."""


def open_regular(file: Path | str) -> BufferedReader:
    """Open a file to read bytes; never waits for another process.

    Raises NotRegular for a pipe, a socket or a device, IsADirectoryError for a folder, and OSError.
    """
    _require_regular(file, os.stat(file))  # before it is opened: that alone may change a device
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # which a regular file ignores
    try:
        _require_regular(file, os.fstat(descriptor))  # it may have been replaced in between
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(file: Path | str, most: int) -> bytes:
    """Read a file of at most this many bytes. Raises as ``open_regular``, and TooLarge."""
    with open_regular(file) as opened:
        size = os.fstat(opened.fileno()).st_size
        found = b"" if size > most else opened.read(size)  # a read takes memory for all that it asks for
    if size > most:
        raise TooLarge(f"{printable(str(file))} has more than {most / 2**20:.3g} MiB: no such file is that large")
    return found


def require_regular(file: Path | str) -> None:
    """Raise NotRegular or IsADirectoryError for what is no regular file, or a link to such; nothing if it is absent."""
    with suppress(FileNotFoundError, NotADirectoryError):
        _require_regular(file, os.stat(file))


def _require_regular(file: Path | str, status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(21, "it is a folder", os.fspath(file))
    for is_kind, kind in _KINDS:
        if is_kind(status.st_mode):
            raise NotRegular(f"{printable(str(file))} is {kind}, not a file: name a file, or move it elsewhere")
