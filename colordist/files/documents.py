"""JSON and YAML that a stranger may have written: parsed once, with limits, into a typed value.

Whatever doesn't fit is a ``Malformed``: one line with the place, to be completed by the file's name.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

from colordist.errors import UserError, one_line, printable
from colordist.files.opening import MOST_BYTES

_MOST_VALUES, _MOST_DEPTH = 100_000, 32  # of a document, with each alias counted as what it stands for
_MOST_KEYS = 20_000  # of a YAML mapping
_MOST_BITS = 64  # of a whole number

T = TypeVar("T")


class Malformed(ValueError):
    """A document isn't what it should be. The message is one line."""


class DamagedFile(UserError):
    """A file isn't what was written."""


def parse_json(text: bytes | str, kind: type[T]) -> T:
    """Parse JSON as a type: a dataclass, a msgspec.Struct, or ``dict[str, float]``. Keys that it lacks are ignored.

    Accepts NaN and Infinity, which Python writes. Raises Malformed.
    """
    return typed(_loads(text), kind)


def parse_plain_json(text: bytes | str, kind: type[T]) -> T:
    """Parse JSON fast, without limits: for large files, and types without ``Any``, which bound the depth themselves.

    Else as ``parse_json``.
    """
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError as error:
        raise Malformed(_place(str(error))) from None
    except (msgspec.DecodeError, ValueError, RecursionError):  # or it has NaN or Infinity
        return _convert(_loads(text), kind)


def _loads(text: bytes | str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"it is no JSON: {_line(error)}") from None


def parse_yaml(text: bytes | str) -> Any:  # noqa: ANN401  a mapping, a list or a plain value
    """Parse YAML of plain values. Raises Malformed, also for keys that are no text or given twice."""
    if len(text) > MOST_BYTES:  # PyYAML takes seconds for so many
        raise Malformed(f"it has more than {MOST_BYTES >> 10} KiB")
    try:
        found = yaml.load(text, _Loader)
    except Exception as error:  # PyYAML raises KeyError and AttributeError, too
        raise Malformed(f"it is no YAML: {_line(error)}") from None
    _check_limits(found)
    return found


def as_yaml(value: object) -> str:
    """Plain values as YAML that any parser reads as the same: quoted, the text 1e3 is no number."""
    return yaml.dump(value, Dumper=_Dumper)


def typed(value: object, kind: type[T], place: str = "") -> T:
    """Plain values as a type, as for ``parse_json``. Raises Malformed, and what a dataclass raises itself.

    place: that of the value in its document, as `train`.
    """
    _check_limits(value)
    return _convert(value, kind, place)


@contextmanager
def damage_of(file: Path) -> Iterator[None]:
    """Raise a DamagedFile that names the file for a Malformed, or a value out of range."""
    try:
        yield
    except (Malformed, UserError) as error:
        raise DamagedFile(f"{file} is damaged: {error}") from None


def _convert(value: object, kind: type[T], place: str = "") -> T:
    try:
        return msgspec.convert(value, kind)
    except (msgspec.ValidationError, OverflowError, UnicodeError) as error:
        raise Malformed(_place(str(error), place)) from None


def _check_limits(value: object) -> None:
    """Raise Malformed for values that are too many or too deep, as those of an alias to itself."""
    if sum(1 for _ in islice(_values(value, 0), _MOST_VALUES + 1)) > _MOST_VALUES:
        raise Malformed(f"it has more than {_MOST_VALUES} values")


def _values(value: object, depth: int) -> Iterator[None]:
    yield
    if depth > _MOST_DEPTH:
        raise Malformed(f"it is nested more than {_MOST_DEPTH} deep")
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise Malformed(f"the key {_short(key)} is no text")
            yield from _values(inner, depth + 1)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _values(inner, depth + 1)
    elif isinstance(value, int) and value.bit_length() > _MOST_BITS:
        raise Malformed(f"it has a number of {value.bit_length()} bits")
    elif value is not None and not isinstance(value, str | int | float):  # of YAML: a date, bytes
        raise Malformed(f"{value!s:.50} is a {type(value).__name__}, neither text nor a number: quote it")


class _Loader(yaml.SafeLoader):
    """Raises YAMLError for a key that is given twice in a mapping, and for too many keys by way of merges.

    Dates are text, as for jsonargparse.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a dict."""
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge" or not isinstance(key, yaml.ScalarNode):
                continue
            if (key.tag, key.value) in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} is given twice", node.start_mark)
            seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Replace merge keys by what they stand for."""
        super().flatten_mapping(node)
        if len(node.value) > _MOST_KEYS:
            raise yaml.constructor.ConstructorError(None, None, f"more than {_MOST_KEYS} keys", node.start_mark)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:timestamp"]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _Dumper(yaml.SafeDumper):
    """Quotes all text."""


_Dumper.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))


def _short(value: object) -> str:
    try:
        return f"{value!r:.50}"
    except ValueError:  # an integer of more digits than Python converts
        return "of a mapping"


def _line(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return f"it is nested more than {_MOST_DEPTH} deep"
    return one_line(error, 200)


def _place(message: str, place: str = "") -> str:
    """msgspec's message with the place first: ``train.steps: expected int, got str``."""
    found = re.fullmatch(r"(.*?)(?: - at `(?:key` in `)?\$\.?(.*)`)?", message, re.DOTALL)
    assert found
    said, where = printable(found[1]).replace("`", ""), ".".join(filter(None, (place, printable(found[2] or ""))))
    return f"{where}: {said[:1].lower()}{said[1:]}" if where else f"{said[:1].lower()}{said[1:]}"
