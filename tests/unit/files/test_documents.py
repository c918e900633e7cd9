"""documents: JSON and YAML of a stranger become typed values, or one line with the place."""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest

from colordist.config import TrainConfig
from colordist.errors import UserError
from colordist.files.documents import DamagedFile, Malformed, damage_of, parse_json, parse_plain_json, parse_yaml, typed


@dataclass(frozen=True, kw_only=True)
class Inner:
    size: Annotated[int, msgspec.Meta(ge=0, le=10)] = 3
    mode: Literal["a", "b"] = "a"


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    inner: Inner = field(default_factory=Inner)
    scales: dict[str, float] = field(default_factory=dict)
    images: list[Inner] = field(default_factory=list)


GOOD = [
    ('{"name": "x"}', Outer(name="x")),
    ('{"name": "x", "later": [1, {"a": null}]}', Outer(name="x")),
    ('{"name": "x", "inner": {"size": 0, "mode": "b"}}', Outer(name="x", inner=Inner(size=0, mode="b"))),
    ('{"name": "x", "scales": {"a": 1, "b": 1e308}}', Outer(name="x", scales={"a": 1.0, "b": 1e308})),
    ('{"name": "x", "scales": {"a": Infinity}}', Outer(name="x", scales={"a": float("inf")})),
]
BAD = {
    "": "it is no JSON: Expecting value: line 1 column 1 (char 0)",
    "{": "it is no JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
    "null": "expected object, got null",
    "[]": "expected object, got array",
    "{}": "object missing required field name",
    '{"name": 5}': "name: expected str, got int",
    '{"name": "x", "inner": 5}': "inner: expected object, got int",
    '{"name": "x", "inner": {"size": "3"}}': "inner.size: expected int, got str",
    '{"name": "x", "inner": {"size": 3.5}}': "inner.size: expected int, got float",
    '{"name": "x", "inner": {"size": true}}': "inner.size: expected int, got bool",
    '{"name": "x", "inner": {"size": -1}}': "inner.size: expected int >= 0",
    '{"name": "x", "inner": {"size": 11}}': "inner.size: expected int <= 10",
    '{"name": "x", "inner": {"mode": "c"}}': "inner.mode: invalid enum value 'c'",
    '{"name": "x", "scales": {"a": null}}': "scales[...]: expected float, got null",
    '{"name": "x", "images": [{}, {"size": null}]}': "images[1].size: expected int, got null",
}


@pytest.mark.parametrize(("text", "expected"), GOOD)
def test_json_as_a_type(text: str, expected: Outer) -> None:
    assert parse_json(text, Outer) == parse_plain_json(text, Outer) == expected


@pytest.mark.parametrize("text", BAD)
def test_json_that_does_not_fit(text: str) -> None:
    for parse in (parse_json, parse_plain_json):
        with pytest.raises(Malformed) as caught:
            parse(text, Outer)
        assert str(caught.value) == BAD[text]


NUMBERS = dict[str, int | float]


def test_integers_stay_integers() -> None:
    found = parse_plain_json('{"a": 5, "b": 5.0, "c": NaN, "d": -Infinity}', NUMBERS)
    assert [type(value) for value in found.values()] == [int, float, float, float]


LIMITS: dict[str, str | bytes] = {
    "nested": "[" * 1_000_000,
    "nested and closed": "[" * 900 + "]" * 900,
    "a huge number": '{"a": ' + "9" * 400 + "}",
    "more digits than Python converts": '{"a": NaN, "b": ' + "9" * 5000 + "}",
    "many values": "[" + "1," * 100_000 + "1]",
    "a lone surrogate": '{"a": "\ud800"}',
    "no text": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("name", LIMITS)
def test_limits_of_json(name: str) -> None:
    text, begin = LIMITS[name], time.monotonic()
    with pytest.raises(Malformed) as caught:
        parse_json(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"), dict[str, float])
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300
    assert time.monotonic() - begin < 5


YAML = {
    "a: [1, 2.5, x, null, true]": {"a": [1, 2.5, "x", None, True]},
    "a: &x {b: 1}\nc: *x": {"a": {"b": 1}, "c": {"b": 1}},
    "a: &x {b: 1}\nc: {<<: *x, d: 2}": {"a": {"b": 1}, "c": {"b": 1, "d": 2}},
    "a: 2020-01-01": {"a": "2020-01-01"},
    "": None,
    "- 1": [1],
}
BAD_YAML = {
    "a: [1,": "it is no YAML: ",
    "a: 1\na: 2": "a is given twice",
    "1: 2": "the key 1 is no text",
    "a: {null: 2}": "the key None is no text",
    "? [a]\n: 1": "it is no YAML: ",
    "a: &a [*a]": "it is nested more than 32 deep",
    "a: !!timestamp 2020-01-01": "2020-01-01 is a date, neither text nor a number: quote it",
    "a: !!binary aGk=": "is a bytes, neither text nor a number: quote it",
    "a: !!set {b}": "is a set, neither text nor a number: quote it",
    "a: !!python/name:os.system": "it is no YAML: could not determine a constructor",
    f"a: {'9' * 100}": "it has a number of 333 bits",
    "a: *b": "found undefined alias 'b'",
    "[" * 20_000: "it is nested more than 32 deep",
    "\x00": "it is no YAML: unacceptable character",
    "a: '" + "x" * 2**20 + "'": "it has more than 1024 KiB",
    '"\\e[31m": 1\n5: 1': "the key 5 is no text",
}


@pytest.mark.parametrize("text", YAML)
def test_yaml(text: str) -> None:
    assert parse_yaml(text) == YAML[text]


@pytest.mark.parametrize("text", BAD_YAML)
def test_yaml_that_is_refused(text: str) -> None:
    with pytest.raises(Malformed) as caught:
        parse_yaml(text)
    assert BAD_YAML[text] in str(caught.value)
    assert str(caught.value).isprintable()


def test_settings_and_their_place() -> None:
    assert typed({"steps": 5, "later": 1}, TrainConfig, "train") == TrainConfig(steps=5)
    with pytest.raises(Malformed, match=r"^train\.steps: expected int, got str$"):
        typed({"steps": "5"}, TrainConfig, "train")
    with pytest.raises(Malformed, match=r"^train: expected object, got array$"):
        typed([], TrainConfig, "train")
    with pytest.raises(UserError, match=r"^train\.steps is 0, but must be at least 1"):
        typed({"steps": 0}, TrainConfig, "train")


@pytest.mark.parametrize("error", [Malformed("a: expected int"), UserError("a: expected int")])
def test_damage_names_the_file(error: Exception) -> None:
    with (
        pytest.raises(DamagedFile, match=r"^run/config\.yaml is damaged: a: expected int$"),
        damage_of(Path("run/config.yaml")),
    ):
        raise error


def test_what_python_writes_is_read() -> None:
    value: dict[str, Any] = {"a": float("nan"), "b": 1e-320, "c": 2**53, "\u2028\x1b": -0.0}
    found = parse_json(json.dumps(value), dict[str, float])
    assert repr(found) == repr({key: float(each) for key, each in value.items()})
