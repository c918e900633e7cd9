"""index.json: what lies where in a folder of shards. A shard is a plain tar file, as WebDataset writes them."""

import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

FORMAT = 1
NAME = "index.json"


@dataclass
class Shard:
    """One tar file. Columns have an entry for each of its samples."""

    split: Literal["train", "test"]
    name: str
    """Of the file, beside the index: letters, digits, ``_`` and ``-``, then ``.tar``."""
    bytes: int = 0
    """Size of the file."""
    sha256: str = ""
    """Of the file, in hexadecimal."""
    keys: list[str] = field(default_factory=list)
    """Names in the tar file."""
    offsets: list[int] = field(default_factory=list)
    """Where in the tar file an image file begins, in bytes."""
    sizes: list[int] = field(default_factory=list)
    """How long it is, in bytes."""
    classes: list[int] = field(default_factory=list)
    """What it shows: places among the index's classes. Empty where that isn't known."""


@dataclass(frozen=True)
class Index:
    """All shards, in the order of their samples."""

    classes: list[str]
    """Names of what images show. Empty where that isn't known."""
    shards: list[Shard]

    def text(self) -> str:
        """What the file holds."""
        return json.dumps({"format": FORMAT} | asdict(self), separators=(",", ":")) + "\n"

    @staticmethod
    def read(text: bytes) -> "Index":
        """Nothing in it is trusted: it may come from the net. Raises ValueError for a damaged one."""
        try:
            found: dict[str, Any] = json.loads(text)
            if found["format"] != FORMAT:
                raise ValueError(f"format {found['format']}, but this version reads {FORMAT}")
            index = Index([str(name) for name in found["classes"]], [Shard(**shard) for shard in found["shards"]])
            for shard in index.shards:
                _check(shard, len(index.classes))
        except (KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"{type(error).__name__} {error}") from None
        return index


def _check(shard: Shard, classes: int) -> None:
    """Raise ValueError for what ``pack`` would not have written. A name or sum becomes part of a path."""
    if shard.split not in ("train", "test") or not re.fullmatch(r"[A-Za-z0-9_-]{1,200}\.tar", shard.name):
        raise ValueError(f"no shard is called {shard.name!r}")
    if not re.fullmatch("[0-9a-f]{64}", shard.sha256):
        raise ValueError(f"no sum of {shard.name}")
    numbers = [shard.bytes, *shard.offsets, *shard.sizes, *shard.classes]
    if any(type(number) is not int or number < 0 for number in numbers):
        raise ValueError(f"a number of {shard.name} is none")
    count = len(shard.keys)
    if count == 0 or {len(shard.offsets), len(shard.sizes)} != {count}:
        raise ValueError(f"columns of {shard.name} differ in length")
    if any(offset + size > shard.bytes for offset, size in zip(shard.offsets, shard.sizes, strict=True)):
        raise ValueError(f"a sample lies outside {shard.name}")
    if len(shard.classes) != (count if classes else 0) or any(each >= classes for each in shard.classes):
        raise ValueError(f"a sample of {shard.name} has no class")
