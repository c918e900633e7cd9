"""Paths as users write them."""

from pathlib import Path

from colordist.config import UserError


def expanded(path: Path | str) -> Path:
    """A path with ``~`` replaced by the home folder. Raises UserError where there is none."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UserError(f"{path}: there is no such home folder: set HOME, or write the path without ~") from None
