"""Paths as users write them."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from colordist.errors import UserError


def expanded(path: Path | str) -> Path:
    """A path with ``~`` replaced by the home folder. Raises UserError where there is none."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UserError(f"{path}: there is no such home folder: set HOME, or write the path without ~") from None


def model_path(text: str) -> Path:
    """MODEL as a path. One written as a path (`./a/b`, `a/b/`) is never taken for the Hub's `a/b`."""
    path = Path(text)
    return path.absolute() if str(path) != text and not is_there(path) else path


def is_there(path: Path) -> bool:
    """Whether a path exists; a path that can't be one doesn't."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def impossible(error: Exception) -> str | None:
    """One line for an error that says that a text can be no path, whatever the file system holds; else None."""
    if isinstance(error, OSError) and error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
        return f"{error.filename} can't be a path ({error.strerror}): name another one"
    if isinstance(error, RuntimeError) and isinstance(error.__context__, OSError):  # of ``Path.resolve``
        return impossible(error.__context__)
    if isinstance(error, UnicodeEncodeError) and error.encoding == sys.getfilesystemencoding():
        return f"{error.object} can't be a path in this locale ({error.encoding}): set PYTHONUTF8=1, or name another"
    if isinstance(error, ValueError) and str(error).startswith("embedded null"):
        return "a path has a NUL character: name another one"
    return None


def make_folder(folder: Path) -> list[Path]:
    """Create a folder with its parents. Returns those that weren't there, for ``remove_empty``."""
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return made


def remove_empty(folders: list[Path]) -> None:
    """Remove these folders, the innermost first, as far as they are empty."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


@contextmanager
def output_folder(folder: Path) -> Iterator[None]:
    """Context with a folder for output. Nothing is left of it where nothing was written into it."""
    made = make_folder(folder)
    try:
        yield
    finally:
        remove_empty(made)
