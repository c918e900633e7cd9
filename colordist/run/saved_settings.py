"""The settings in a run's config.yaml, checked against the settings' types."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from colordist import registry
from colordist.config import COMMON, Config
from colordist.errors import UserError
from colordist.files.documents import Malformed, typed

_REQUIRED = ("task", "model", "data", "optimizer", *COMMON)
_COMPONENTS: dict[str, registry.Kind] = {
    "task": "task",
    "model": "model",
    "discriminator": "discriminator",
    "data": "source",
}


class _Scalars(msgspec.Struct):
    """Settings without a section."""

    seed: Annotated[int, msgspec.Meta(ge=0, lt=2**63 - 1)] = Config.seed
    resume: Literal["auto", "never"] = "auto"


def check_settings(found: dict[str, Any]) -> dict[str, Any]:
    """Settings as plain values by section; common ones that an older version didn't write have their defaults.

    Keys that this version doesn't know are kept, and so are the sections of components that aren't installed. Raises
    Malformed, and UserError for a value out of range.
    """
    for section in _REQUIRED:
        if not isinstance(found.get(section), dict):
            raise Malformed(f"it has no section {section}")
    if not isinstance(found.get("discriminator", {}), dict):
        raise Malformed("it has no section discriminator")
    for key in registry.NAME_KEYS:
        section, _, name = key.partition(".")
        if section in found and found[section].get(name) is None:
            raise Malformed(f"it has no {key}")
    checked = {
        section: found[section] | dataclasses.asdict(typed(found[section], kind, section))
        for section, kind in COMMON.items()
    }
    names = registry.Names.of(found)
    for section, kind in _COMPONENTS.items():
        if section in found and (settings := _settings_type(kind, getattr(names, kind))) is not None:
            checked[section] = _given(found[section], typed_settings(settings, found[section], section))
    scalars = msgspec.structs.asdict(typed(found, _Scalars))
    return found | scalars | checked | {"optimizer": _optimizers(found, names)}


def typed_settings(kind: Any, values: Mapping[str, Any], section: str) -> Any:  # noqa: ANN401  a settings dataclass
    """Plain values as a dataclass of settings, without unknown keys. Raises Malformed, and UserError for a range."""
    try:
        return typed(values, kind, section)
    except TypeError:  # another package's, with types that msgspec can't check
        known = {each.name for each in dataclasses.fields(kind)}
        return kind(**{key: value for key, value in values.items() if key in known})


def _given(given: dict[str, Any], settings: Any) -> dict[str, Any]:  # noqa: ANN401  a dataclass
    """The checked values of the given keys: a component's missing ones stay missing."""
    checked = dataclasses.asdict(settings)
    return {key: checked.get(key, value) for key, value in given.items()}


def _optimizers(found: dict[str, Any], names: registry.Names) -> dict[str, Any]:
    """The optimizers of a task that is installed, checked, and the others as they are."""
    checked = dict(found["optimizer"])
    task = _settings_type("task", names.task)
    for name, kind in (task.optimizers if task else {}).items():
        if name in checked:
            settings = typed_settings(kind, checked[name], f"optimizer.{name}")
            settings.check(f"optimizer.{name}")
            checked[name] = _given(checked[name], settings)
    return checked


def _settings_type(kind: registry.Kind, name: str) -> Any:  # noqa: ANN401  a dataclass
    """A component's settings; None where it isn't installed."""
    try:
        return registry.component(kind, name).Settings
    except UserError:
        return None
