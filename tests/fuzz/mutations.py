"""Mutations of real files: of their bytes, and of the structure of JSON and YAML."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import yaml
from hypothesis import strategies as st
from values import VALUES

Draw = Any  # hypothesis' function to draw from a strategy


@st.composite
def damaged(draw: Draw, original: bytes) -> bytes:
    """A file with some bytes flipped, cut out, inserted, repeated or replaced by those of another place."""
    data = bytearray(original)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, max(len(data) - 1, 0)))
        end = min(start + draw(st.sampled_from([1, 2, 4, 8, 64, 1024])), len(data))
        match draw(st.sampled_from(["flip", "set", "cut", "insert", "repeat", "truncate", "copy"])):
            case "flip" if data:
                data[start] ^= 1 << draw(st.integers(0, 7))
            case "set":
                data[start:end] = draw(st.sampled_from([b"\0", b"\xff", b"\x7f", b"\x80"])) * (end - start)
            case "cut":
                del data[start:end]
            case "insert":
                data[start:start] = draw(st.binary(max_size=16))
            case "repeat":
                data[start:start] = data[start:end] * draw(st.integers(1, 50))
            case "truncate":
                del data[start:]
            case "copy":
                other = draw(st.integers(0, max(len(data) - 1, 0)))
                data[start:end] = data[other : other + end - start]
    return bytes(data)


def _places(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _places(inner, (*path, key))


@st.composite
def restructured(draw: Draw, original: Any) -> Any:  # noqa: ANN401  plain values
    """Plain values of which one or two are replaced, removed, renamed or wrapped."""
    value = copy.deepcopy(original)
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from([*_places(value)]))
        if not path:
            if draw(st.integers(0, 9)) == 0:
                return draw(VALUES)
            continue
        holder = value
        for key in path[:-1]:
            holder = holder[key]
        match draw(st.sampled_from(["replace", "replace", "replace", "remove", "rename", "wrap", "deep"])):
            case "replace":
                holder[path[-1]] = draw(VALUES)
            case "remove":
                del holder[path[-1]]
            case "rename" if isinstance(holder, dict):
                holder[draw(st.one_of(st.text(max_size=8), st.integers(), st.none()))] = holder.pop(path[-1])
            case "wrap":
                holder[path[-1]] = [holder[path[-1]]]
            case "deep":
                for _ in range(draw(st.sampled_from([5, 40, 500]))):
                    holder[path[-1]] = {"a": holder[path[-1]]}
    return value


def _json(value: object) -> bytes:
    try:
        return json.dumps(value).encode()
    except (TypeError, ValueError, RecursionError):  # keys that JSON doesn't have
        return b'{"a":' * 2000


def _yaml(value: object) -> bytes:
    try:
        return yaml.safe_dump(value).encode("utf-8", "surrogatepass")
    except (yaml.YAMLError, ValueError, RecursionError):
        return b"[" * 2000


@st.composite
def mutated(draw: Draw, name: str, original: bytes) -> bytes:
    """A mutation of a file: of the bytes, or of the structure where it has one by its name."""
    kind = name.rpartition(".")[2]
    if kind not in ("json", "jsonl", "yaml") or draw(st.integers(0, 2)) == 0:
        return bytes(draw(damaged(original)))
    if kind == "yaml":
        return _yaml(draw(restructured(yaml.safe_load(original))))
    if kind == "json":
        return _json(draw(restructured(json.loads(original))))
    lines = original.splitlines()
    changed = draw(st.integers(0, len(lines) - 1))
    lines[changed] = _json(draw(restructured(json.loads(lines[changed]))))
    return b"\n".join(lines) + b"\n"
