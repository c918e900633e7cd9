"""A disk that fails at the n-th operation, whoever asks for it: what Python's files and folders do is counted here.

Changes are operations; so are, where that is asked for, reads: of a file, of a folder's names, of what a name is.
"""

import errno
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

PATHS = ("mkdir", "rename", "replace", "unlink", "rmdir", "symlink", "fsync", "open")
READS = ("listdir", "scandir", "stat", "lstat")
KILLED = 77
Fault = Callable[[str], None]
"""Called before each operation with its name; may raise, or never return."""


class _Raw(io.FileIO):
    """A file each write of which is an operation: half of it is done before."""

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
    """A file each read of which is an operation."""

    before: Fault

    def readinto(self, buffer: Any) -> Any:  # noqa: ANN401  any buffer
        self.before("read")
        return super().readinto(buffer)

    def readall(self) -> Any:  # noqa: ANN401  as the class that it is of
        self.before("read")
        return super().readall()


@contextmanager
def watched(before: Fault, *, reads: bool = False) -> Iterator[None]:
    """Every change of the disk in here asks first; reads: and every read."""

    def checked(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def operation(*args: Any, **options: Any) -> Any:  # noqa: ANN401
            before(name)
            return real(*args, **options)

        return operation

    def open_to_read(file: Any, mode: str, *rest: Any, **options: Any) -> Any:  # noqa: ANN401
        if not reads:
            return real_open(file, mode, *rest, **options)
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
    """Note the operations."""
    return done.append


OUT_OF_MEMORY = 0
"""Stands for a MemoryError among the numbers of errors."""


def refusing(at: int, code: int = errno.ENOSPC, *, for_good: bool = False) -> Fault:
    """Fail the operation number ``at``, counted from 0; and all after it, if that is for good."""
    count = -1

    def fault(name: str) -> None:
        nonlocal count
        count += 1
        if count == at or (for_good and count > at):
            raise MemoryError if code == OUT_OF_MEMORY else OSError(code, os.strerror(code), name)

    return fault


def refusing_kind(name: str, code: int = errno.ENOSPC) -> Fault:
    """Fail every operation of a kind."""

    def fault(done: str) -> None:
        if done == name:
            raise OSError(code, os.strerror(code), name)

    return fault


def killing(at: int) -> Fault:
    """End this process at the operation number ``at``, as a kill would."""
    count = -1

    def fault(_: str) -> None:
        nonlocal count
        count += 1
        if count == at:
            os._exit(KILLED)

    return fault


def in_child(work: Callable[[], object]) -> int:
    """Do something in a forked process. Returns its exit code: ``KILLED`` if it was killed."""
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
