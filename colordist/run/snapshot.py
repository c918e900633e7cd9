"""Snapshots: EMA weights, and JSON to rebuild the network without trainer code."""

import dataclasses
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from colordist import registry
from colordist.config import GeneratorSettings, TaskSettings
from colordist.errors import UserError
from colordist.files import hub, weights
from colordist.files.atomic import content
from colordist.files.hub import HubModel
from colordist.files.paths import expanded
from colordist.models.factory import ModelFactory
from colordist.ranges import MOST, whole
from colordist.run.saved_settings import typed_settings
from colordist.tasks.base import Task

FORMAT = 2
BUNDLED = Path(__file__).parents[1] / "bundled"
"""Folder with the snapshots of bundled models."""
_VERSION_01 = 1  # one generator, without its task


@dataclass(frozen=True)
class Snapshot:
    """A trained task for inference: in eval mode, on the CPU, frozen."""

    task: Task
    networks: nn.ModuleDict
    """The networks that ``task.sample`` runs, by name."""
    about: dict[str, Any]
    """The content of model.json."""
    folder: Path

    def sample(self, grey: Tensor, noise: Tensor | None = None, hints: Tensor | None = None) -> Tensor:
        """Colours of grey images: ``Task.sample``."""
        more = {} if hints is None else {"hints": hints}  # a task without hints needn't know them
        return self.task.sample(dict(self.networks.items()), grey, noise, **more)

    @property
    def step(self) -> int:
        """The step at which it was saved. Raises UserError where model.json has none."""
        step: int | None = self.about.get("step")
        if step is None:
            raise UserError(f"the snapshot in {self.folder} is damaged: model.json has no step")
        return step


def write(
    folder: Path, task: Task, networks: dict[str, nn.Module], about: dict[str, Any], card: str | None = None
) -> None:
    """Write ``model.safetensors`` and ``model.json`` into a folder, and point the link ``latest`` beside it there.

    networks: those that the task samples with. about: ``step`` and provenance, plain JSON values. card: the text of
    ``README.md``.
    """
    used: dict[registry.Kind, Any] = {"task": task.settings, "model": task.model}
    settings: dict[str, Any] = {section: each.portable() for section, each in used.items()}
    packages = sorted({registry.provider_of(kind, each.name) for kind, each in used.items()})
    description = {"format": FORMAT, **settings, "requires": packages, **about}
    weights.write(folder, "model", nn.ModuleDict(networks), description, card, link=folder.parent / "latest")


def require_own(folder: Path) -> None:
    """Raise UserError for an existing folder that isn't a snapshot, or holds other files: it mustn't be replaced."""
    weights.require_own(folder, "model")


def read(folder: Path, solver_steps: int | None = None) -> Snapshot:
    """Rebuild the networks of a snapshot. solver_steps: of a flow; default: as trained.

    Raises UserError for a folder without a snapshot, and for one that is damaged, has an unknown format, or needs
    components that aren't installed; and for ``solver_steps`` of a network without a solver.
    """
    with weights.reading(folder, "model", "snapshot"):
        tensors, about = _read(folder)
        if solver_steps is not None:
            about["task"] = _with_solver_steps(about["task"], solver_steps)
        model = _settings(folder, about, "model")
        task: Task = registry.component("task", about["task"]["name"])(_settings(folder, about, "task"), model)
        _check_parameters(task, tensors)
        networks = _build(task)
        stored = next(tensor.dtype for tensor in tensors.values() if tensor.is_floating_point())
        networks.to(stored if stored.itemsize >= 4 else torch.float32)  # half precision only saves space on disk
        networks.load_state_dict(tensors)
    networks.eval().requires_grad_(False)
    return Snapshot(task, networks, about, folder)


def read_weights(folder: Path) -> tuple[dict[str, Tensor], GeneratorSettings, TaskSettings]:
    """Read the weights of a snapshot's first network, on the CPU, its settings and its task's. Raises as ``read``."""
    with weights.reading(folder, "model", "snapshot"):
        tensors, about = _read(folder)
        model: GeneratorSettings = _settings(folder, about, "model")
        task: TaskSettings = _settings(folder, about, "task")
        prefix = f"{registry.component('task', about['task']['name']).sampled[0]}."
    return {name.removeprefix(prefix): each for name, each in tensors.items() if name.startswith(prefix)}, model, task


def image_size(folder: Path) -> int | None:
    """Side in pixels of the images that a snapshot was trained on; None if it records none. Raises as ``read``."""
    with weights.reading(folder, "model", "snapshot"):
        size: int | None = _read(folder)[1].get("image_size")
    return size


class _Component(msgspec.Struct):
    name: str


class _Description(msgspec.Struct):
    """What is read in model.json, besides the components' own settings."""

    task: _Component
    model: _Component
    requires: list[str] = []
    step: Annotated[int, msgspec.Meta(ge=0, le=MOST)] | None = None
    image_size: Annotated[int, msgspec.Meta(ge=1, le=2**16)] | None = None
    scores: dict[str, float | None] | None = None
    source: str | None = None
    init_from: str | None = None


def _read(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read tensors and model.json, converted to the current format."""
    tensors, about = weights.read(folder, "model", "snapshot", (_VERSION_01, FORMAT))
    if about["format"] == _VERSION_01:
        weights.describe(about | {"task": {"name": "autoencoder"}}, _Description, "model")
        given = about["model"]
        if given.get("norm") == "batch":
            raise UserError(
                f"the snapshot in {folder} has model.norm batch, which no longer exists: use the version of colordist "
                "that wrote it, or train again with model.norm group"
            )
        known = {each.name for each in dataclasses.fields(registry.component("model", given["name"]).Settings)}
        model = {key: value for key, value in given.items() if key in known}
        about = {**about, "task": {"name": "autoencoder"}, "model": model}
        tensors = {f"generator.{name}": tensor for name, tensor in tensors.items()}
    weights.describe(about, _Description, "model")
    return tensors, about


def _build(task: Task) -> nn.ModuleDict:
    """The networks that a task samples with, with random weights."""
    return nn.ModuleDict({name: spec.module for name, spec in task.build_sampled(ModelFactory(0, task.model)).items()})


class _FarTooLarge(ValueError):
    """A network is far larger than its weights."""


def _check_parameters(task: Task, tensors: dict[str, Tensor]) -> None:
    """Raise ValueError for networks far larger than their weights, before memory is taken for them.

    model.json may come from anywhere, and one number in it is enough for any size.
    """
    found, thread = sum(each.numel() for each in tensors.values()), threading.get_ident()
    built = 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if threading.get_ident() != thread or parameter is None:
            return
        nonlocal built
        built += 1
        if built > 10 * len(tensors) + 2000:  # parts of an encoder may be built and dropped
            raise _FarTooLarge(
                f"model.json describes far more tensors than model.safetensors, which has {len(tensors)}"
            )

    counting = register_module_parameter_registration_hook(count)  # while it is built, which may take long, too
    try:
        with torch.device("meta"):
            described = sum(each.numel() for each in _build(task).state_dict().values())
    except _FarTooLarge:
        raise
    except Exception:  # a component of another package may need real tensors
        return
    finally:
        counting.remove()
    if described > 2 * found + 1_000_000:
        raise ValueError(f"model.json describes {described} parameters, model.safetensors has {found}")


def _with_solver_steps(task: dict[str, Any], steps: int) -> dict[str, Any]:
    if "solver_steps" not in task:
        raise UserError(f"solver_steps is {steps}, but a network of task {task['name']} has no solver: leave it out")
    whole("solver_steps", steps, 1)
    return task | {"solver_steps": steps}


def _settings(folder: Path, about: dict[str, Any], section: registry.Kind) -> Any:  # noqa: ANN401
    """The component settings in a section of model.json."""
    values = about[section]
    if values["name"] not in registry.names(section):
        packages = ", ".join(each for each in about.get("requires", []) if each != "colordist") or "another package"
        raise UserError(
            f"the snapshot in {folder} needs {registry.key_of(section)} {values['name']} of {packages}: install it, or "
            "give --import MODULE"
        )
    try:
        settings = typed_settings(registry.component(section, values["name"]).Settings, values, section)
        registry.make_settings(section, values)  # it refuses unknown keys
        return settings
    except UserError as error:
        raise UserError(f"the snapshot in {folder} is damaged, or of another version: {error}") from None


def latest(run: Path) -> Path:
    """The newest snapshot of a run folder. Raises UserError where there is none."""
    folder = run / "snapshots" / "latest"
    if not folder.exists():
        raise UserError(f"{run} holds no snapshot yet: train it first")
    return folder


def bundled() -> list[str]:
    """Names of the models that come with colordist."""
    return sorted(path.parent.name for path in BUNDLED.glob("*/model.json") if not path.parent.is_symlink())


def find(model: Path) -> Path:
    """Resolve MODEL: a snapshot's folder, a run's, for its newest snapshot, a bundled model's name, or one of the Hub.

    A run or a snapshot of that name goes first; another folder, as one of photographs, doesn't. A model of the Hub is
    fetched; its folder is named after the commit.
    """
    if (folder := find_local(model)) is not None:
        return folder
    named = HubModel.parse(model.as_posix())
    if named is not None and named.revision is not None:
        return _fetch(named)
    if named is not None and not model.parent.is_dir():  # else it is a path, possibly misspelt
        try:
            return _fetch(named)
        except UserError as error:
            raise UserError(f"there is no folder {model}, and {error}") from None
    names = bundled()
    or_bundled = f", or a bundled model's name: {', '.join(names)}" if names else ""
    or_hub = f"; {model}@main is the Hub's" if named else ""
    what = f"{model} is neither a run nor a snapshot" if model.is_dir() else f"there is no folder {model}"
    raise UserError(f"{what}: give the folder of a run, or of a snapshot{or_bundled}{or_hub}")


def find_local(model: Path) -> Path | None:
    """Resolve MODEL as ``find`` does, among what is on this machine; None where that is nothing."""
    model = expanded(model)
    if (model / "model.json").exists():
        return model
    if any((model / each).exists() for each in ("config.yaml", "snapshots")):
        return latest(model)
    return BUNDLED / model if str(model) in bundled() else None


def pinned(model: Path) -> Path:
    """MODEL with the commit that it stands for now, if it is one of the Hub, which is fetched; else unchanged."""
    folder, named = find(model), HubModel.parse(model.as_posix())
    return model if named is None or find_local(model) is not None else Path(str(named.at(folder.name)))


def _fetch(model: HubModel) -> Path:
    """Fetch a snapshot from the Hub: first its JSON, since other models have large files of the same name."""
    folder = hub.download(model, ["model.json"])
    if not weights.is_description(content(folder / "model.json") or b""):
        raise UserError(f"the Hub's {model} holds no snapshot of colordist: name another model, or a folder")
    folder = hub.download(model.at(folder.name), ["model.json", "model.safetensors"], progress=True)
    if not (folder / "model.safetensors").is_file():
        raise UserError(f"the Hub's {model} holds no model.safetensors: name another model, or a folder")
    return folder
