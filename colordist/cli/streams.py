"""Standard streams that may be closed, full or broken: writing to them never fails.

A run doesn't end because its terminal is gone. Where the output is what was asked for, ``require_output`` says that it
is incomplete, after the work: files are written all the same.
"""

import errno
import io
import os
import select
import sys
from typing import TYPE_CHECKING, TextIO

from colordist.errors import RunError

if TYPE_CHECKING:
    from typing_extensions import Buffer  # collections.abc.Buffer from Python 3.12 on


class _Tolerant(io.FileIO):
    """A stream of this process. After a write that failed, nothing more is written to it."""

    error: OSError | None = None
    """The failure."""
    is_wanted = True
    """Whether a failure matters."""

    def write(self, data: "Buffer", /) -> int:
        """Write; waits where another program has made the stream non-blocking."""
        try:
            while (written := super().write(data)) is None:
                select.select([], [self], [])
            return written
        except OSError as error:
            self.fail(error)
            return memoryview(data).nbytes

    def fail(self, error: OSError) -> None:
        """Send what follows to the null device; also what libraries in C write."""
        self.error = error
        _to_null(self.fileno())


def protect() -> None:
    """Have writes to stdout and stderr never fail. A closed stream counts as the null device."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            _to_null(number)  # else the next file that is opened would be taken for the stream
    sys.stdout, sys.stderr = _protected(sys.stdout, 1), _protected(sys.stderr, 2)


def output_is_optional() -> None:
    """Ignore failures of stdout from now on: the run folder has what it shows."""
    if raw := _raw(sys.stdout):
        raw.is_wanted = False


def require_output() -> None:
    """Raise RunError if output was lost. A pipe that was closed is none: its reader has had enough."""
    sys.stdout.flush()
    raw = _raw(sys.stdout)
    if raw and raw.is_wanted and raw.error and raw.error.errno != errno.EPIPE:
        raise RunError(f"the output can't be written ({raw.error.strerror}): send it elsewhere")


def _protected(stream: TextIO | None, number: int) -> TextIO:
    """stream: None where it was closed. That of a test or a notebook, which isn't the process's own, is left as is."""
    if stream is not None and not (isinstance(stream, io.TextIOWrapper) and _number(stream) == number):
        return stream
    if stream is None:
        return io.TextIOWrapper(io.BufferedWriter(_Tolerant(number, "wb", closefd=False)), "utf-8", errors="replace")
    if _raw(stream):
        return stream
    raw = _Tolerant(number, "wb", closefd=False)
    try:
        stream.flush()
    except OSError as error:
        raw.fail(error)
    is_unbuffered = isinstance(stream.buffer, io.RawIOBase)  # python -u
    return io.TextIOWrapper(
        raw if is_unbuffered else io.BufferedWriter(raw),  # as Python itself does
        stream.encoding,
        errors="replace",  # e.g. arrows on an ASCII terminal
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _number(stream: TextIO) -> int | None:
    """The file descriptor of a stream; None for one in memory."""
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return None


def _raw(stream: TextIO) -> _Tolerant | None:
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)
    return raw if isinstance(raw, _Tolerant) else None


def _to_null(number: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null != number:
        os.dup2(null, number)
        os.close(null)
    os.set_inheritable(number, True)
