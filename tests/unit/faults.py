"""Injection of disk faults into all file operations of Python in this process.

Operations are writes to files and changes of folders; optionally also reads of files, folders and metadata.
"""

import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

PATHS = ("mkdir", "rename", "replace", "unlink", "rmdir", "symlink", "fsync", "open")
READS = ("listdir", "scandir", "stat", "lstat")
KILLED = 77
Fault = Callable[[str], None]
"""Called with the name of each operation before it. May raise, or end the process."""


class _Raw(io.FileIO):
    """A file whose writes are operations. A failing one writes half of its data first."""

    before: Fault

    def write(self, data: Any) -> int:  # noqa: ANN401  any buffer
        view = memoryview(data).cast("B")
        try:
            self.before("write")
        except OSError:
            super().write(view[: len(view) // 2])
            raise
        return super().write(view)


class _Read(io.FileIO):
    """A file whose reads are operations."""

    before: Fault

    def readinto(self, buffer: Any) -> Any:  # noqa: ANN401  any buffer
        self.before("read")
        return super().readinto(buffer)

    def readall(self) -> Any:  # noqa: ANN401  as in the base class
        self.before("read")
        return super().readall()


@contextmanager
def watched(fault: Fault, *, reads: bool = False) -> Iterator[None]:
    """Context in which ``fault`` is called before each operation. reads: include reads.

    Except those of a lock's heartbeat, which come at any time: the number of an operation would depend on them.
    """

    def before(name: str) -> None:
        if threading.current_thread().name != "lock":
            fault(name)

    def checked(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def operation(*args: Any, **options: Any) -> Any:  # noqa: ANN401
            if not (name == "open" and args[1] & os.O_NONBLOCK):  # as of files.opening: a read
                before(name)
            elif reads:
                before("open to read")
            return real(*args, **options)

        return operation

    def open_to_read(file: Any, mode: str, *rest: Any, **options: Any) -> Any:  # noqa: ANN401
        if not reads:
            return real_open(file, mode, *rest, **options)
        if not isinstance(file, int):  # else it was counted when it was opened
            before("open to read")
        raw = _Read(file, "r")
        raw.before = before
        return io.BufferedReader(raw) if "b" in mode else io.TextIOWrapper(io.BufferedReader(raw), encoding="utf-8")

    def open_(file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **options: Any) -> Any:  # noqa: ANN401
        if not set(mode) & set("wax+"):
            return open_to_read(file, mode, buffering, *rest, **options)
        before("open")
        raw = _Raw(file, mode.replace("b", "").replace("t", ""))
        raw.before = before
        if buffering == 0:
            return raw
        return io.BufferedWriter(raw) if "b" in mode else io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8")

    real_open = io.open
    with pytest.MonkeyPatch.context() as patch:
        for name in PATHS + (READS if reads else ()):
            patch.setattr(os, name, checked(name))
        patch.setattr(io, "open", open_)
        patch.setattr("builtins.open", open_)
        yield


def counting(done: list[str]) -> Fault:
    """Record the names of operations."""
    return done.append


OUT_OF_MEMORY = 0
"""Pseudo error code for a MemoryError."""


def refusing(at: int, code: int = errno.ENOSPC, *, for_good: bool = False) -> Fault:
    """Fail operation number ``at``, from 0. for_good: and all later ones."""
    count = -1

    def fault(name: str) -> None:
        nonlocal count
        count += 1
        if count == at or (for_good and count > at):
            raise MemoryError if code == OUT_OF_MEMORY else OSError(code, os.strerror(code), name)

    return fault


def refusing_kind(name: str, code: int = errno.ENOSPC) -> Fault:
    """Fail all operations of this name."""

    def fault(done: str) -> None:
        if done == name:
            raise OSError(code, os.strerror(code), name)

    return fault


def killing(at: int) -> Fault:
    """End this process at operation number ``at``, as a kill would."""
    count = -1

    def fault(_: str) -> None:
        nonlocal count
        count += 1
        if count == at:
            os._exit(KILLED)

    return fault


def in_child(work: Callable[[], object]) -> int:
    """Run work in a forked process. Returns its exit code: ``KILLED`` if ``killing`` ended it."""
    sys.stdout.flush()
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    signal.alarm(60)
    try:
        work()
    except BaseException as error:
        os.write(2, f"{error!r}\n".encode())
        os._exit(1)
    os._exit(0)
