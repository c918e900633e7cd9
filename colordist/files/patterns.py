"""Files by glob patterns, as ``'photos/**/*.jpg'``."""

import os
import re
from collections.abc import Iterable, Iterator
from itertools import takewhile
from pathlib import Path

_WILDCARDS = re.compile(r"[*?[]")


def fixed_part(pattern: str) -> Path:
    """The folders before the first wildcard."""
    return Path(*takewhile(lambda part: not _WILDCARDS.search(part), Path(pattern).parts))


def matches(pattern: str) -> list[Path]:
    """Paths that match a pattern, sorted, without hidden ones.

    ``**`` follows links to folders, but searches each folder once: two links to the folder that holds them would be
    followed 2**40 times.
    """
    top = fixed_part(pattern)
    parts = [re.sub(r"\*{2,}", "*", part) if part != "**" else part for part in Path(pattern).parts[len(top.parts) :]]
    if parts[-1:] == ["**"]:
        parts.append("*")
    found = [top] if top.exists() else []
    for part in parts:
        found = list(dict.fromkeys(below for each in found for below in _below(each, part)))
    return sorted(each for each in found if not _is_hidden(each.relative_to(top)))


def _below(folder: Path, part: str) -> Iterable[Path]:
    """The paths in a folder that match a part of a pattern; of ``**`` the folder and all folders below it."""
    if part == "**":
        return _folders(folder)
    if _WILDCARDS.search(part):
        return folder.glob(part)
    return [folder / part] if (folder / part).exists() else []


def _folders(top: Path) -> Iterator[Path]:
    """A folder and those below it, each once, without hidden ones. A link counts if the folder has no other path."""
    waiting, seen = [top], set()
    for root in waiting:  # which grows meanwhile
        for here, names, _ in os.walk(root):
            status = os.stat(here)
            if (status.st_dev, status.st_ino) in seen:
                names.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            names[:] = sorted(name for name in names if name[0] != ".")
            waiting += [link for name in names if (link := Path(here, name)).is_symlink()]
            yield Path(here)


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") and part != ".." for part in path.parts)
