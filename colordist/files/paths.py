"""Paths as users write them."""

import errno
import sys
from pathlib import Path

from colordist.config import UserError


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
    if isinstance(error, UnicodeEncodeError) and error.encoding == sys.getfilesystemencoding():
        return f"{error.object} can't be a path in this locale ({error.encoding}): set PYTHONUTF8=1, or name another"
    if isinstance(error, ValueError) and str(error).startswith("embedded null"):
        return "a path has a NUL character: name another one"
    return None
