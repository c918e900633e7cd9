"""Every number among the settings has a finite range: outside of it, one line names the key, before any work."""

import dataclasses
import math
from collections.abc import Iterator
from functools import partial
from typing import Any, get_args, get_type_hints

import pytest
from irregular import within

from colordist import registry
from colordist.config import COMMON
from colordist.errors import UserError
from colordist.optimizers import OptimizerConfig
from colordist.registry import OURS, component

EXTREMES = (-1, 0, 10**9, 10**30, math.inf, -math.inf, math.nan)
HUGE = (10**30, math.inf, -math.inf, math.nan)  # which no key takes


def numbers(kind: type) -> Iterator[str]:
    """Names of the fields that are numbers."""
    hints = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        kinds = {hints[field.name], *get_args(hints[field.name])}
        if {int, float} & kinds and str not in kinds:  # a class of images may be named by a number
            yield field.name


def build(kind: type, section: str, **given: Any) -> None:  # noqa: ANN401  any setting
    made = kind(**given)
    if isinstance(made, OptimizerConfig):  # checked by the whole config
        made.check(section)


def cases() -> Iterator[Any]:
    kinds: dict[str, type] = {**COMMON, "optimizer.generator": OptimizerConfig}
    for section, kind in kinds.items():
        for name in numbers(kind):
            yield pytest.param(partial(build, kind, section), f"{section}.{name}", name, id=f"{section}.{name}")
    for part in OURS:
        for chosen in OURS[part]:
            kind = component(part, chosen).Settings
            for name in numbers(kind):
                key = f"{registry.key_of(part).removesuffix('.name').removesuffix('.source')}.{name}"
                yield pytest.param(partial(build, kind, ""), key, name, id=f"{part} {chosen}: {name}")


@pytest.mark.parametrize(("build", "key", "name"), list(cases()))
def test_numbers_out_of_range_are_refused_by_name(build: Any, key: str, name: str) -> None:  # noqa: ANN401
    for value in EXTREMES:
        said = refusal(build, **{name: value})
        if said is None:
            assert value not in HUGE
            assert not math.isnan(value)
        else:
            assert "\n" not in said
            assert said.startswith(key)
            assert "nan" not in said.partition("try")[2]


def refusal(build: Any, **given: Any) -> str | None:  # noqa: ANN401  any setting
    """The message of the UserError, if there is one, within a moment."""
    try:
        with within(2):
            build(**given)
    except UserError as error:
        return str(error)
    return None
