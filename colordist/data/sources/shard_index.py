"""Index of a folder of shards: index.json. A shard is a tar file in WebDataset format."""

import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

FORMAT = 1
NAME = "index.json"


@dataclass
class Shard:
    """One tar file. Lists have an entry per sample."""

    split: Literal["train", "test"]
    name: str
    """File name, next to the index: letters, digits, ``_`` and ``-``, then ``.tar``."""
    bytes: int = 0
    """File size."""
    sha256: str = ""
    """SHA-256 of the file, in hexadecimal."""
    keys: list[str] = field(default_factory=list)
    """Member names."""
    offsets: list[int] = field(default_factory=list)
    """Offsets of the image files, in bytes."""
    sizes: list[int] = field(default_factory=list)
    """Sizes of the image files, in bytes."""
    classes: list[int] = field(default_factory=list)
    """Class indices. Empty without class labels."""


@dataclass(frozen=True)
class Index:
    """All shards, in the order of their samples."""

    classes: list[str]
    """Class names. Empty without class labels."""
    shards: list[Shard]

    def text(self) -> str:
        """Content of the file."""
        return json.dumps({"format": FORMAT} | asdict(self), separators=(",", ":")) + "\n"

    @staticmethod
    def read(text: bytes) -> "Index":
        """Parse an index from an untrusted server. Raises ValueError for a damaged one."""
        try:
            content: dict[str, Any] = json.loads(text)
            if content["format"] != FORMAT:
                raise ValueError(f"format {content['format']}, but this version reads {FORMAT}")
            index = Index([str(name) for name in content["classes"]], [Shard(**shard) for shard in content["shards"]])
            for shard in index.shards:
                _check(shard, len(index.classes))
        except (KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"{type(error).__name__} {error}") from None
        return index


def _check(shard: Shard, classes: int) -> None:
    """Raise ValueError for an entry that ``pack`` wouldn't write. Name and checksum become part of a path."""
    if shard.split not in ("train", "test") or not re.fullmatch(r"[A-Za-z0-9_-]{1,200}\.tar", shard.name):
        raise ValueError(f"{shard.name!r} is no name of a shard")
    if not re.fullmatch("[0-9a-f]{64}", shard.sha256):
        raise ValueError(f"{shard.name} has no SHA-256")
    numbers = [shard.bytes, *shard.offsets, *shard.sizes, *shard.classes]
    if any(type(number) is not int or number < 0 for number in numbers):
        raise ValueError(f"{shard.name} has an entry that is no natural number")
    count = len(shard.keys)
    if count == 0 or {len(shard.offsets), len(shard.sizes)} != {count}:
        raise ValueError(f"columns of {shard.name} differ in length")
    if any(offset + size > shard.bytes for offset, size in zip(shard.offsets, shard.sizes, strict=True)):
        raise ValueError(f"a sample lies outside {shard.name}")
    if len(shard.classes) != (count if classes else 0) or any(each >= classes for each in shard.classes):
        raise ValueError(f"a sample of {shard.name} has no class")
