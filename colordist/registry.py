"""Components by name: tasks, generators, discriminators, sources and metrics, ours and those of others.

A component is a class with a ``Settings`` dataclass. Ours are listed here and imported on use. Others come by entry
point (``colordist.tasks``, ``colordist.models``, ``colordist.discriminators``, ``colordist.sources``,
``colordist.metrics``), or by ``register`` in a module named by ``--import``.
"""

import dataclasses
import difflib
import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, TypeVar

from colordist.config import COMMON, Config, DataConfig, DiscriminatorSettings, GeneratorSettings, TaskSettings
from colordist.errors import UserError, one_line

Kind = Literal["task", "model", "discriminator", "source", "metric"]

OURS: dict[Kind, dict[str, str]] = {
    "task": {
        "autoencoder": "colordist.tasks.autoencoder:AutoencoderTask",
        "cgan": "colordist.tasks.cgan:CGANTask",
        "cyclegan": "colordist.tasks.cyclegan:CycleGANTask",
        "flow": "colordist.tasks.flow:FlowTask",
    },
    "model": {
        "unet": "colordist.models.unet:UNet",
        "autoencoder": "colordist.models.autoencoder:Autoencoder",
        "timm_unet": "colordist.models.timm_unet:TimmUNet",
    },
    "discriminator": {
        "patchgan": "colordist.models.discriminator:Discriminator",
    },
    "source": {
        "synthetic": "colordist.data.sources.synthetic:SyntheticSource",
        "cifar10": "colordist.data.sources.archive:CIFAR10",
        "cifar100": "colordist.data.sources.archive:CIFAR100",
        "stl10": "colordist.data.sources.archive:STL10",
        "folder": "colordist.data.sources.folder:FolderSource",
        "datasets": "colordist.data.sources.datasets:DatasetSource",
    },
    "metric": {
        "features": "colordist.metrics.timm_features:TimmFeaturesMetric",
        "inception": "colordist.metrics.inception:InceptionMetric",
        "lpips": "colordist.metrics.lpips:LPIPSMetric",
    },
}
BASES: dict[Kind, type] = {
    "task": TaskSettings,
    "model": GeneratorSettings,
    "discriminator": DiscriminatorSettings,
    "source": DataConfig,
}
"""Base classes of components' settings, by kind."""
_registered: dict[tuple[Kind, str], type] = {}

C = TypeVar("C", bound=type)


def register(kind: Kind, name: str) -> Callable[[C], C]:
    """Register a component class. Raises ValueError for a name that is taken, TypeError for unfit ``Settings``::

    @register("model", "tiny")
    class Tiny(nn.Module): ...
    """

    def add(component: C) -> C:
        _check_settings(kind, component)
        if name in OURS[kind] or _registered.get((kind, name), component) is not component:
            raise ValueError(f"there is a {kind} named {name} already")
        _registered[kind, name] = component
        return component

    return add


def _check_settings(kind: Kind, component: C) -> C:
    """Return the component. Raises TypeError unless its ``Settings`` are a dataclass derived from the kind's."""
    base = BASES.get(kind, object)
    settings = getattr(component, "Settings", None)
    if not (isinstance(settings, type) and dataclasses.is_dataclass(settings) and issubclass(settings, base)):
        derived = f" derived from {base.__name__}" if kind in BASES else ""
        raise TypeError(f"{component.__name__}.Settings must be a dataclass{derived}")
    return component


def load_modules(modules: Iterable[str]) -> None:
    """Import the modules of ``--import``, which register components. Raises UserError for one that fails."""
    for module in modules:
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as error:
            reason = one_line(f"{type(error).__name__}: {error}", 300)
            missing = isinstance(error, ModuleNotFoundError) and module.startswith(f"{error.name}")
            way_out = "name a module on PYTHONPATH" if missing else "correct it, or name another module"
            raise UserError(f"--import {module}: it can't be imported ({reason}): {way_out}") from None


def names(kind: Kind) -> list[str]:
    """All names of a kind, ours first."""
    others = {*_entry_points(kind), *(name for each, name in _registered if each == kind)}
    return [*OURS[kind], *sorted(others - OURS[kind].keys())]


def component(kind: Kind, name: str) -> Any:  # noqa: ANN401  a class of the kind
    """Import a component's class. Raises UserError for an unknown name, or a failed import."""
    if name in OURS[kind]:
        module, _, attribute = OURS[kind][name].partition(":")
        return getattr(importlib.import_module(module), attribute)
    if (kind, name) in _registered:
        return _registered[kind, name]
    check_name(kind, name)
    entry = _entry_points(kind)[name]
    try:
        return _check_settings(kind, entry.load())
    except Exception as error:
        reason = one_line(error, 300)
        raise UserError(f"{key_of(kind)} {name} of {entry.value} can't be imported: {reason}") from None


def check_name(kind: Kind, name: str) -> None:
    """Raise UserError for an unknown name. Imports nothing."""
    if name not in (known := names(kind)):
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
        raise UserError(
            f"{key_of(kind)}: there is no {name!r} among {', '.join(known)}: did you mean {nearest}? A custom one "
            "needs --import MODULE"
        )


def key_of(kind: Kind) -> str:
    """The key that selects a component of this kind."""
    return {"source": "data.source", "metric": "evaluate.metrics"}.get(kind, f"{kind}.name")


def provider_of(kind: Kind, name: str) -> str:
    """Top-level package of a component."""
    return str(component(kind, name).__module__).partition(".")[0]


@dataclass(frozen=True)
class Names:
    """Names of the selected components. Defaults: the quickstart's."""

    task: str = "cgan"
    model: str = "unet"
    discriminator: str = "patchgan"
    source: str = "synthetic"

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "Names":
        """Names in settings by section, ``{"task": {"name": "cgan"}, ...}``; missing ones have their defaults."""
        found = {}
        for field, key in zip(dataclasses.fields(cls), NAME_KEYS, strict=True):
            section, _, name = key.partition(".")
            given = settings.get(section) or {}
            if not isinstance(given, Mapping):
                raise UserError(f"{section} is {given!r}, but must be a section: {section}: {{{name}: ...}}")
            value = given.get(name)
            if value is not None and not (value and isinstance(value, str)):
                raise UserError(f"{key} is {value!r}, but must be a name: {', '.join(names(field.name))}")  # type: ignore[arg-type]
            if value:
                found[field.name] = value
        return cls(**found)


NAME_KEYS = ("task.name", "model.name", "discriminator.name", "data.source")
"""The keys that select components, in the order of ``Names``."""


def sections(selected: Names) -> dict[str, Any]:
    """Settings dataclasses of the selected components by section: ``{"task": ..., "model": ...}``."""
    task = component("task", selected.task).Settings
    found = {"task": task, "model": component("model", selected.model).Settings}
    if task.has_discriminator:
        found["discriminator"] = component("discriminator", selected.discriminator).Settings
    return found | {"data": component("source", selected.source).Settings}


def optimizers(selected: Names) -> dict[str, Any]:
    """Dataclasses of the selected task's optimizer sections, by name."""
    return dict(component("task", selected.task).Settings.optimizers)


def defaults(selected: Names) -> dict[str, Any]:
    """Default settings with these components, as plain values by section."""
    found: dict[str, Any] = {"seed": Config.seed, "resume": Config.resume}
    for section, kind in sections(selected).items():
        name = {"source": selected.source} if section == "data" else {"name": getattr(selected, section)}
        found[section] = dataclasses.asdict(kind(**name))
    found["optimizer"] = {name: dataclasses.asdict(kind()) for name, kind in optimizers(selected).items()}
    return found | {section: dataclasses.asdict(kind()) for section, kind in COMMON.items()}


def make_config(settings: Mapping[str, Any]) -> Config:
    """Build a config from settings by section, ``{"train": {"steps": 5}}``; missing keys have their defaults.

    Raises UserError for an unknown key or an invalid value.
    """
    selected = Names.of(settings)
    base, values = defaults(selected), {}
    for section in settings:
        if section not in base:
            raise UserError(f"there is no section {section} with task {selected.task}: remove it")
    for section, kind in (sections(selected) | COMMON).items():
        values[section] = _make(kind, section, {**base[section], **settings.get(section, {})})
    given = settings.get("optimizer", {})
    values["optimizer"] = {
        name: _make(kind, f"optimizer.{name}", given.get(name, {})) for name, kind in optimizers(selected).items()
    }
    scalars = {key: settings[key] for key in ("seed", "resume") if key in settings}
    return Config(**{"discriminator": None, **values, **scalars})


def make_settings(kind: Kind, values: Mapping[str, Any]) -> Any:  # noqa: ANN401  an instance of its Settings
    """Build a component's settings from plain values, including ``name``. Raises UserError for an unknown key."""
    return _make(component(kind, values["name"]).Settings, kind, values)


def _make(kind: type, section: str, values: Mapping[str, Any]) -> Any:  # noqa: ANN401  an instance of kind
    known = [field.name for field in dataclasses.fields(kind)]
    for key in values:
        if key not in known:
            nearest = difflib.get_close_matches(key, known, n=1, cutoff=0)[0]
            raise UserError(f"unknown key {section}.{key}: did you mean {section}.{nearest}?")
    return kind(**values)


def _entry_points(kind: Kind) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=f"colordist.{kind}s")}
