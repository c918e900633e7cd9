"""Files by glob patterns, as ``'photos/**/*.jpg'``."""

import re
from itertools import takewhile
from pathlib import Path

_WILDCARDS = re.compile(r"[*?[]")


def fixed_part(pattern: str) -> Path:
    """The folders before the first wildcard."""
    return Path(*takewhile(lambda part: not _WILDCARDS.search(part), Path(pattern).parts))


def matches(pattern: str) -> list[Path]:
    """Paths that match a pattern, sorted, without hidden ones.

    ``**`` follows no links to folders: two of them to the folder that holds them would be walked 2**40 times.
    """
    top = fixed_part(pattern)
    parts = [re.sub(r"\*{2,}", "*", part) if part != "**" else part for part in Path(pattern).parts[len(top.parts) :]]
    if not parts:
        return [top] if top.exists() else []
    if parts[-1] == "**":  # pathlib's would match folders only
        parts.append("*")
    found = top.glob("/".join(parts))
    return sorted(each for each in found if not _is_hidden(each.relative_to(top)))


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") and part != ".." for part in path.parts)
