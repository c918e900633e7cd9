"""Components by name: tasks, generators, discriminators, sources and metrics, ours and those of others.

A component is a class with a ``Settings`` dataclass. Ours are listed here and imported when they are chosen; other
packages offer theirs by entry point (``colordist.tasks``, ``colordist.models``, ``colordist.discriminators``,
``colordist.sources``, ``colordist.metrics``), and a module named by ``--import`` by ``register``.
"""

import difflib
import importlib
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, TypeVar

from colordist.config import UserError

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


def _entry_points(kind: Kind) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=f"colordist.{kind}s")}
