"""Atomic file writes, accurate I/O errors, and protection of foreign files.

colordist removes or replaces only files that it can show to be its own. Its temporary names contain ``.colordist-``,
the host's name and the PID; see ``temporary``.
"""

import ctypes
import errno
import os
import re
import socket
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeGuard

from colordist.errors import RunError, UserError, one_line
from colordist.files.opening import MOST_BYTES, TooLarge, read_regular, require_regular
from colordist.files.paths import impossible

ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
"""Errors that prove that there is no such file. Any other OSError doesn't."""

_FAILING = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO, errno.EBUSY, errno.EAGAIN),
    *(errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH),
    *(errno.ENOMEM, errno.EMFILE, errno.ENFILE),
}
"""Error codes of a storage that fails or is full; others say that the user has named a wrong place."""
_EXHAUSTED = re.compile(r"out of memory|can't allocate memory|not enough memory|ALLOC_FAILED", re.IGNORECASE)
_MOST_OUTPUT = 2**31  # bytes: the limit of an ONNX file
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # from Linux's headers


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the host or a device is out of memory. torch raises a RuntimeError for both."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and bool(_EXHAUSTED.search(str(error))))


@contextmanager
def writing(what: Path) -> Iterator[None]:
    """Raise RunError for a write that fails or runs out of memory."""
    with _failing(what, "can't be written"):
        yield


@contextmanager
def reading(what: Path) -> Iterator[None]:
    """Raise RunError for a read that fails or runs out of memory: it doesn't mean that the file is damaged."""
    with _failing(what, "can't be read"):
        yield


def is_failing(error: BaseException | None) -> TypeGuard[OSError]:
    """Whether an error says that a disk fails, rather than that something is wrong with a file."""
    return isinstance(error, OSError) and error.errno in _FAILING


@contextmanager
def writing_to(place: Path, way_out: str, option: str = "") -> Iterator[None]:
    """Raise UserError for a place that can't be written, with the way out; RunError where its storage fails.

    option: the command-line option that names the place.
    """
    named = f"{option} {place}".lstrip()
    try:
        yield
    except (OSError, UnicodeError) as error:
        if is_failing(error):
            raise RunError(f"{named} can't be written ({reason(error)}): once it can be, repeat the command") from None
        raise UserError(f"{named} can't be written ({reason(error)}): {way_out}") from None


@contextmanager
def _failing(what: Path, how: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if line := impossible(error):
            raise UserError(line) from None
        if not (isinstance(error, OSError) or out_of_memory(error)):
            raise
        raise RunError(f"{what} {how} ({reason(error)}): once it can be, the same command continues") from None


def reason(error: BaseException) -> str:
    """The error's message as one short line."""
    if out_of_memory(error):
        return "out of memory"
    return one_line(error.strerror if isinstance(error, OSError) and error.strerror else error, 200)


def exists(path: Path) -> bool:
    """Whether a path exists; a dangling link does. Raises RunError where that can't be determined."""
    with reading(path):
        try:
            path.lstat()
        except ABSENT:
            return False
    return True


def content(file: Path, most: int = MOST_BYTES) -> bytes | None:
    """Read a file; None if there is none.

    Raises RunError where it can't be read, UserError where it is no regular file or larger than ``most`` bytes.
    """
    with reading(file):
        try:
            return read_regular(file, most)
        except ABSENT:
            return None


def flush(path: Path) -> None:
    """Fsync a file, or the entries of a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- temporary names


def temporary(path: Path, role: str = "new") -> Path:
    """A temporary name beside a path, unique to this process; ``sweep`` recognises those of killed processes."""
    return path.with_name(f".{path.name[:40]}.colordist-{socket.gethostname()[:40]}-{os.getpid()}-{role}")


def sweep(folder: Path, names: Collection[str] = ()) -> None:
    """Remove temporary files and folders of this process, and of dead processes of this machine, from a folder.

    names: files that temporary folders may hold; others keep their folder.
    """
    for path in folder.glob(".*.colordist-*"):
        found = re.fullmatch(r"\..*\.colordist-(.*)-(\d+)-[a-z]+", path.name)
        if found is None or found[1] != socket.gethostname()[:40] or _is_another_alive(int(found[2])):
            continue
        with suppress(OSError):
            if path.is_dir() and not path.is_symlink():
                remove_folder(path, names)
            else:
                path.unlink()


def _is_another_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return process != os.getpid()


# --- atomic writes


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Replace a file atomically and durably: fsync, rename, fsync of the folder. Yields the temporary path to write.

    Raises NotRegular for a pipe, a socket or a device, which would be removed.
    """
    require_regular(file)
    draft = temporary(file)
    try:
        yield draft
        flush(draft)
        os.replace(draft, file)
    except BaseException:
        with suppress(OSError):
            draft.unlink()
        raise
    flush(file.parent)


def replace_text(file: Path, text: str) -> None:
    """Replace a text file atomically and durably, as ``replacing``."""
    with replacing(file) as draft, draft.open("w", encoding="utf-8") as opened:
        opened.write(text)


def exchange(first: Path, second: Path) -> bool:
    """Exchange two paths atomically. Returns False where the system or the file system doesn't support it."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
        return False
    raise OSError(code, os.strerror(code), str(second))


def point(link: Path, target: str) -> None:
    """Point a symbolic link to a name beside it, atomically. Raises UserError if something else has its name."""
    if exists(link) and not link.is_symlink():
        raise UserError(f"{link} is in the way: move it elsewhere")
    draft = temporary(link)
    draft.unlink(missing_ok=True)
    draft.symlink_to(target)
    os.replace(draft, link)
    flush(link.parent)


# --- foreign files


def require_own(file: Path, option: str, what: str, is_own: Callable[[bytes], bool]) -> None:
    """Raise UserError for an existing file that, by its content, isn't colordist's own: it mustn't be replaced.

    option: the command-line option that names it. what: the kind of file, in a word.
    """
    if not exists(file):
        return
    try:
        found = content(file, _MOST_OUTPUT)
    except TooLarge:
        found = None
    if found is None or not is_own(found):
        raise UserError(f"{option} {file} is there already, and is no {what} of colordist's: name another file")


def require_writable(file: Path, option: str) -> None:
    """Raise UserError if a file can't be written, before the work on its content. Its folder needn't exist yet.

    option: the command-line option that names it.
    """
    folder = next(each for each in file.absolute().parents if exists(each))
    if not folder.is_dir():
        raise UserError(f"{option} {file} can't be written, as {folder} is no folder: name another file")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{option} {file} can't be written, for lack of permission in {folder}: name another file")


def remove_folder(folder: Path, names: Collection[str]) -> None:
    """Remove these files from a folder, then the folder. Raises OSError if it holds others."""
    for name in names:
        (folder / name).unlink(missing_ok=True)
    folder.rmdir()


def holds_only(folder: Path, names: Collection[str]) -> bool:
    """Whether a folder exists and holds only files of these names. Raises OSError where it can't be read."""
    try:
        found = list(folder.iterdir())
    except ABSENT:
        return False
    return all(path.name in names and path.is_file() and not path.is_symlink() for path in found)
