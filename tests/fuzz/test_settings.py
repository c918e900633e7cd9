"""Every setting of every component, by command line and by file, with values that fit, nearly fit, or don't."""

from itertools import product
from pathlib import Path
from typing import Any, Literal, get_args

import pytest
import yaml
from forking import call, require_civil
from helpers import leaves
from hypothesis import given
from hypothesis import strategies as st
from material import TINY, cases, fresh
from values import TEXTS, VALUES, fitting

from colordist.registry import Names, names

SELECTIONS = [
    Names(task=task, source=source)
    for task, source in (*product(names("task"), ["synthetic"]), *product(["autoencoder"], names("source")))
]
SMALL = dict(zip(TINY[::2], TINY[1::2], strict=True))


def as_text(value: Any) -> str:  # noqa: ANN401
    """As one would write it on a command line."""
    text = value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True, width=1e9)
    return text.removesuffix("\n").removesuffix("\n...").replace("\0", "\\0").encode("utf-8", "replace").decode()


@st.composite
def changes(draw: Any, selected: Names) -> dict[str, Any]:  # noqa: ANN401
    """One to three settings, mostly known ones."""
    hints = dict(leaves(selected))
    chosen = draw(st.lists(st.sampled_from(sorted(hints)), min_size=1, max_size=3, unique=True))
    found = {key: draw(fitting(hints[key])) for key in chosen}
    if draw(st.integers(0, 9)) == 0:
        found[draw(st.one_of(TEXTS, st.sampled_from(chosen).map(lambda key: f"{key}.x")))] = draw(VALUES)
    return found


@pytest.mark.fuzz
@pytest.mark.parametrize("selected", SELECTIONS, ids=lambda each: f"{each.task}-{each.source}")
@pytest.mark.parametrize("by", ["arguments", "file"])
def test_a_setting_is_taken_or_refused_in_one_line(by: str, selected: Names, place: Path) -> None:
    known = {key for key, _ in leaves(selected)}
    small = {key: value for key, value in SMALL.items() if key.removeprefix("--") in known}

    @cases(25)
    @given(changes(selected))
    def check(changed: dict[str, Any]) -> None:
        fresh(place)
        own = ["train", "--dry_run", "--task.name", selected.task, "--data.source", selected.source]
        rest = {key: value for key, value in small.items() if key.removeprefix("--") not in changed}
        arguments = [*own, *(part for pair in rest.items() for part in pair)]
        if by == "arguments":
            arguments += [f"--{as_text(key)}={as_text(value)}" for key, value in changed.items()]
        else:
            nested: dict[str, Any] = {}
            for key, value in changed.items():
                section, _, name = key.partition(".")
                nested.setdefault(section, {})
                if name and isinstance(nested[section], dict):
                    nested[section][name] = value
                else:
                    nested[section] = value
            (place / "a.yaml").write_bytes(yaml.safe_dump(nested).encode("utf-8", "surrogatepass"))
            arguments += ["--config", "a.yaml"]
        require_civil(call(arguments, place))
        assert {path.name for path in place.iterdir()} <= {"a.yaml"}  # a dry run writes nothing

    check()


@pytest.mark.fuzz
@pytest.mark.parametrize("section", ["data", "evaluate"])
def test_settings_of_evaluate(section: str, trained: Path, place: Path) -> None:
    hints = {key: hint for key, hint in leaves(Names()) if key.startswith(f"{section}.")}

    @cases(40)
    @given(st.sampled_from(sorted(hints)).flatmap(lambda key: st.tuples(st.just(key), fitting(hints[key]))))
    def check(changed: tuple[str, Any]) -> None:
        fresh(place, trained)
        require_civil(call(["evaluate", "run", f"--{changed[0]}={as_text(changed[1])}"], place))

    check()


def test_every_literal_is_among_the_values() -> None:
    drawn: set[Any] = set()

    @cases(200)
    @given(fitting(Literal["a", "b", "c"]))
    def collect(value: Any) -> None:  # noqa: ANN401
        drawn.add(repr(value))

    collect()
    assert {repr(each) for each in get_args(Literal["a", "b", "c"])} <= drawn
