"""Components by name: tasks, generators, discriminators, sources and metrics, ours and those of others.

A component is a class with a ``Settings`` dataclass. Ours are listed here and imported when they are chosen; other
packages offer theirs by entry point (``colordist.tasks``, ``colordist.models``, ``colordist.discriminators``,
``colordist.sources``, ``colordist.metrics``), and a module named by ``--import`` by ``register``.
"""

import dataclasses
import difflib
import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, TypeVar

from colordist.config import COMMON, Config, UserError

Kind = Literal["task", "model", "discriminator", "source", "metric"]

OURS: dict[Kind, dict[str, str]] = {
    "task": {
        "autoencoder": "colordist.tasks.autoencoder:AutoencoderTask",
        "cgan": "colordist.tasks.cgan:CGANTask",
        "cyclegan": "colordist.tasks.cyclegan:CycleGANTask",
    },
    "model": {
        "unet": "colordist.models.unet:UNet",
        "autoencoder": "colordist.models.autoencoder:Autoencoder",
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
        "shards": "colordist.data.sources.shards:ShardSource",
    },
    "metric": {
        "classifier": "colordist.metrics.classifier:ClassifierMetric",
        "inception": "colordist.metrics.inception:InceptionMetric",
        "lpips": "colordist.metrics.lpips:LPIPSMetric",
    },
}
_registered: dict[tuple[Kind, str], type] = {}

C = TypeVar("C", bound=type)


def register(kind: Kind, name: str) -> Callable[[C], C]:
    """Offer a class under a name. Raises ValueError for a name that is taken by another one::

    @register("model", "tiny")
    class Tiny(nn.Module): ...
    """

    def add(component: C) -> C:
        if name in OURS[kind] or _registered.get((kind, name), component) is not component:
            raise ValueError(f"there is a {kind} named {name} already")
        _registered[kind, name] = component
        return component

    return add


def load_modules(modules: Iterable[str]) -> None:
    """Import the modules of ``--import``, which register their components. Raises UserError for one that fails."""
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(
                f"--import {module}: it can't be imported ({reason}): name a module on PYTHONPATH"
            ) from None


def names(kind: Kind) -> list[str]:
    """The names to choose from: ours first."""
    others = {*_entry_points(kind), *(name for each, name in _registered if each == kind)}
    return [*OURS[kind], *sorted(others - OURS[kind].keys())]


def component(kind: Kind, name: str) -> Any:  # noqa: ANN401  a class of the kind
    """The class of a component. Raises UserError for an unknown name, or one that can't be imported."""
    if name in OURS[kind]:
        module, _, attribute = OURS[kind][name].partition(":")
        return getattr(importlib.import_module(module), attribute)
    if (kind, name) in _registered:
        return _registered[kind, name]
    if (entry := _entry_points(kind).get(name)) is not None:
        try:
            return entry.load()
        except Exception as error:
            raise UserError(f"{key_of(kind)} {name} of {entry.value} can't be imported: {error}") from None
    known = names(kind)
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
    raise UserError(
        f"{key_of(kind)}: there is no {name!r} among {', '.join(known)}: did you mean {nearest}? One of your own needs "
        "--import MODULE"
    )


def key_of(kind: Kind) -> str:
    """The setting that names a component of this kind."""
    return {"source": "data.source", "metric": "evaluate.metrics"}.get(kind, f"{kind}.name")


def provider_of(kind: Kind, name: str) -> str:
    """The top-level package that a component comes from."""
    return str(component(kind, name).__module__).partition(".")[0]


@dataclass(frozen=True)
class Names:
    """The chosen components. The defaults are the quickstart's."""

    task: str = "cgan"
    model: str = "unet"
    discriminator: str = "patchgan"
    source: str = "synthetic"

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "Names":
        """The names in some settings: ``{"task": {"name": "cgan"}, ...}``. Those that are missing: the defaults."""
        found = {}
        for field, key in zip(dataclasses.fields(cls), NAME_KEYS, strict=True):
            section, _, name = key.partition(".")
            value = (settings.get(section) or {}).get(name)
            if value is not None and not isinstance(value, str):
                raise UserError(f"{key} is {value!r}, but must be a name: {', '.join(names(field.name))}")  # type: ignore[arg-type]
            if value:
                found[field.name] = value
        return cls(**found)


NAME_KEYS = ("task.name", "model.name", "discriminator.name", "data.source")
"""The settings that name components, in the order of ``Names``."""


def sections(chosen: Names) -> dict[str, Any]:
    """The settings dataclass of each section that the chosen components have: ``{"task": ..., "model": ...}``."""
    task = component("task", chosen.task).Settings
    found = {"task": task, "model": component("model", chosen.model).Settings}
    if task.has_discriminator:
        found["discriminator"] = component("discriminator", chosen.discriminator).Settings
    return found | {"data": component("source", chosen.source).Settings}


def optimizers(chosen: Names) -> dict[str, Any]:
    """The dataclass of each optimizer section that the chosen task has, by name."""
    return dict(component("task", chosen.task).Settings.optimizers)


def defaults(chosen: Names) -> dict[str, Any]:
    """The default settings with these components, as plain values in sections."""
    found: dict[str, Any] = {"seed": Config.seed, "resume": Config.resume}
    for section, kind in sections(chosen).items():
        name = {"source": chosen.source} if section == "data" else {"name": getattr(chosen, section)}
        found[section] = dataclasses.asdict(kind(**name))
    found["optimizer"] = {name: dataclasses.asdict(kind()) for name, kind in optimizers(chosen).items()}
    return found | {section: dataclasses.asdict(kind()) for section, kind in COMMON.items()}


def make_config(settings: Mapping[str, Any]) -> Config:
    """A config of settings by section; what is missing has its default: ``{"train": {"steps": 5}}``.

    Raises UserError for an unknown key, or a value that doesn't fit.
    """
    chosen = Names.of(settings)
    usual, values = defaults(chosen), {}
    for section in settings:
        if section not in usual:
            raise UserError(f"there is no section {section} with task {chosen.task}: remove it")
    for section, kind in (sections(chosen) | COMMON).items():
        values[section] = _make(kind, section, {**usual[section], **settings.get(section, {})})
    given = settings.get("optimizer", {})
    values["optimizer"] = {
        name: _make(kind, f"optimizer.{name}", given.get(name, {})) for name, kind in optimizers(chosen).items()
    }
    scalars = {key: settings[key] for key in ("seed", "resume") if key in settings}
    return Config(**{"discriminator": None, **values, **scalars})


def make_settings(kind: Kind, values: Mapping[str, Any]) -> Any:  # noqa: ANN401  an instance of its Settings
    """A component's settings from plain values, ``name`` among them. Raises UserError for an unknown key."""
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
