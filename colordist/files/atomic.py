"""Files that are written whole or not at all, faults that are reported as what they are, and files that aren't ours.

colordist removes or replaces only what it can show to be its own. What it writes under a temporary name has
``.colordist-`` in it, the host's name and the process's number; see ``temporary``.
"""

import ctypes
import errno
import os
import re
import socket
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from colordist.config import RunError, UserError

ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
"""What tells for sure that there is no such file. Any other OSError says nothing about what lies there."""

_EXHAUSTED = re.compile(r"out of memory|can't allocate memory|not enough memory|ALLOC_FAILED", re.IGNORECASE)
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # from Linux's headers


def out_of_memory(error: BaseException) -> bool:
    """Whether the memory of the host or of a device is exhausted. torch raises a RuntimeError for both."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and bool(_EXHAUSTED.search(str(error))))


@contextmanager
def writing(what: Path) -> Iterator[None]:
    """A write that fails, or runs out of memory, is a RunError."""
    with _failing(what, "can't be written"):
        yield


@contextmanager
def reading(what: Path) -> Iterator[None]:
    """A read that fails, or runs out of memory, is a RunError: it says nothing about what was written."""
    with _failing(what, "can't be read"):
        yield


@contextmanager
def _failing(what: Path, how: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not (isinstance(error, OSError) or out_of_memory(error)):
            raise
        raise RunError(f"{what} {how} ({reason(error)}): once it can be, the same command continues") from None


def reason(error: BaseException) -> str:
    """What went wrong, in a few words."""
    if out_of_memory(error):
        return "out of memory"
    told = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(told.split())[:200] or type(error).__name__


def exists(path: Path) -> bool:
    """Whether something has this name, be it a link that leads nowhere. Raises RunError where that can't be known."""
    with reading(path):
        try:
            path.lstat()
        except ABSENT:
            return False
    return True


def content(file: Path) -> bytes | None:
    """What a file holds; None where there is none. Raises RunError where it can't be read."""
    with reading(file):
        try:
            return file.read_bytes()
        except ABSENT:
            return None


def flush(path: Path) -> None:
    """See on the disk what a file holds, or what a folder's files are called."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- temporary names


def temporary(path: Path, role: str = "new") -> Path:
    """A name beside a path that nobody else uses: by it, what is left of a killed process is known as ours."""
    return path.with_name(f".{path.name[:40]}.colordist-{socket.gethostname()[:40]}-{os.getpid()}-{role}")


def sweep(folder: Path, names: Collection[str] = ()) -> None:
    """Remove what this process, or one of this machine that is dead, has under temporary names in a folder.

    names: files in there that may be removed along with a folder.
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


# --- whole or not at all


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Write a file that exists whole or not at all, also after a power failure: in here, under the name given."""
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
    """Write a text file that exists whole or not at all, also after a power failure."""
    with replacing(file) as draft, draft.open("w") as opened:
        opened.write(text)


def exchange(first: Path, second: Path) -> bool:
    """Swap two names at once. Returns False where the system or the disk has no such operation."""
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
    """Let a symbolic link lead to a name beside it. Raises UserError for what is there and no link."""
    if exists(link) and not link.is_symlink():
        raise UserError(f"{link} is in the way: move it elsewhere")
    draft = temporary(link)
    draft.unlink(missing_ok=True)
    draft.symlink_to(target)
    os.replace(draft, link)
    flush(link.parent)


# --- what is ours


def require_own(file: Path, option: str, what: str, is_own: Callable[[bytes], bool]) -> None:
    """Raise UserError for a file that is there, unless by what it holds it is one of ours: it may be replaced.

    option: by which it is named. what: it would be, in a word.
    """
    if exists(file) and not ((found := content(file)) is not None and is_own(found)):
        raise UserError(f"{option} {file} is there already, and is no {what} of colordist's: name another file")


def remove_folder(folder: Path, names: Collection[str]) -> None:
    """Remove these files from a folder, and the folder unless it holds others."""
    for name in names:
        (folder / name).unlink(missing_ok=True)
    folder.rmdir()


def holds_only(folder: Path, names: Collection[str]) -> bool:
    """Whether there is a folder, and in it nothing but files of these names. Raises OSError where it can't be read."""
    try:
        found = list(folder.iterdir())
    except ABSENT:
        return False
    return all(path.name in names and path.is_file() and not path.is_symlink() for path in found)
