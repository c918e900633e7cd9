"""Imports run one way only: verbs -> serving -> training, inference, reporting -> evaluation -> engine, run -> data."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import ROOT

PACKAGE = ROOT / "colordist"

# A module imports its own package or lower levels. "" is the package itself, which offers the API.
LEVELS: tuple[tuple[str, ...], ...] = (
    ("secrets",),
    ("errors",),
    ("ranges",),
    ("optimizers",),
    ("config",),
    ("registry", "keys", "extras", "console", "threads", "processes"),
    ("files", "color"),
    ("models", "data", "metrics"),
    ("tasks",),
    ("engine", "run", "tracking"),
    ("evaluation", "reporting"),
    ("training", "inference"),
    ("serving",),
    ("train", "evaluate", "colorize", "export", "push", "report", "doctor", "demo", "cli", ""),
)
# Of the same level or a lower one, and yet not to be known.
FORBIDDEN = {
    "models": {"data", "metrics"},
    "data": {"models", "metrics"},
    "metrics": {"data"},
    "training": {"reporting"},
}
# Who may know what isn't ours. Whoever is named here may; nobody else.
RESERVED = {
    "accelerate": {"engine", "tracking"},
    "deepspeed": {"engine"},
    "torch.distributed": {"engine"},
    "wandb": {"tracking", "reporting"},
    "jsonargparse": {"cli"},
    "huggingface_hub": {"files", "models", "run"},
    "gradio": {"serving"},
    "torchmetrics": {"metrics"},
    "torch_fidelity": {"metrics"},
}


def module_names() -> dict[str, Path]:
    """Every module of ours, by its name without the package's: "data.plan", and "" for the package."""
    names = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return names


MODULES = module_names()


def level(module: str) -> int:
    room = module.split(".")[0]
    for number, rooms in enumerate(LEVELS):
        if room in rooms:
            return number
    raise AssertionError(f"colordist.{module} has no level yet: give it one in LEVELS")


def imported(source: str, module: str) -> Iterator[str]:
    """Full names of all that a module imports anywhere, also inside functions and for type checking only."""
    package = ["colordist", *module.split(".")]
    if module in MODULES and MODULES[module].name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            start = ".".join([*above, *([node.module] if node.module else [])])
            # What is imported may be a module or something in one.
            yield from (f"{start}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}"  # torch.distributed needs no import of its own


def ours(names: Iterator[str]) -> set[str]:
    """The modules of ours among the imported names."""
    found = set()
    for name in names:
        if name.split(".")[0] == "colordist":
            parts = name.split(".")[1:]
            while parts and ".".join(parts) not in MODULES:
                parts.pop()
            found.add(".".join(parts))
    return found


def violations(source: str, module: str) -> list[str]:
    """What in a module's source breaks the rules."""
    room, names = module.split(".")[0], list(imported(source, module))
    found = []
    for other in sorted(ours(iter(names)) - {module}):
        other_room = other.split(".")[0]
        if level(other) > level(module):
            found.append(f"{module} imports {other}, which is above it")
        elif other_room in FORBIDDEN.get(room, ()):
            found.append(f"{module} imports {other}, which it mustn't know")
    for package, rooms in RESERVED.items():
        if room not in rooms and any(f"{name}.".startswith(f"{package}.") for name in names):
            found.append(f"{module} imports {package}, which is for {', '.join(sorted(rooms))} alone")
    if room == "tracking":
        for name in names:
            if name.split(".")[0] == "accelerate" and name.split(".")[1:2] != ["tracking"]:
                found.append(f"{module} imports {name}: of accelerate, tracking is for accelerate.tracking alone")
    if module == "config" and any(name.split(".")[0] == "torch" for name in names):
        found.append("config imports torch")
    return found


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """The names along a cycle; empty where there is none."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return path[path.index(name) :] + [name]
        if name in done:
            return []
        for other in sorted(graph[name]):
            if found := visit(other, [*path, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(graph) if (found := visit(name, []))), [])


def test_the_package_was_found() -> None:
    assert {"", "config", "training.build", "engine.runtime", "tasks.cgan", "data.sampler", "models"} <= set(MODULES)


@pytest.mark.parametrize("module", MODULES, ids=lambda name: name or "colordist")
def test_imports_run_one_way(module: str) -> None:
    assert violations(MODULES[module].read_text(), module) == []


def test_no_cycles() -> None:
    graph = {module: ours(imported(file.read_text(), module)) - {module} for module, file in MODULES.items()}
    assert graph["training.trainer"] >= {"engine.runtime", "run.snapshot", "config"}  # there are edges to walk
    assert cycle(graph) == []


# --- the checker itself


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("tasks.cgan", "from colordist.run.lock import Lock"),
        ("tasks.cgan", "from colordist.engine.network import Network"),
        ("training.trainer", "from colordist.reporting.runs import Run"),
        ("tasks.cgan", "from colordist.training import trainer"),
        ("tasks.cgan", "from ..run import checkpoint"),
        ("tasks.cgan", "def f():\n    import colordist.run.checkpoint as c"),
        ("tasks.cgan", "if TYPE_CHECKING:\n    from colordist.run.lock import Lock"),
        ("models.unet", "from colordist.tasks.base import Loss"),
        ("models.unet", "from colordist.data.loader import Batch"),
        ("models", "from .. import tasks"),
        ("data.plan", "from colordist.training.build import build_source"),
        ("engine.runtime", "from colordist.training.trainer import Trainer"),
        ("reporting.comparison", "from colordist.training.build import build_task"),
        ("training.build", "from colordist.cli import parse"),
        ("training.build", "from colordist import load"),
        ("config", "from colordist.color import AB_SCALE"),
        ("config", "import torch"),
        ("config", "from torch import nn"),
        ("models.unet", "import accelerate"),
        ("training.trainer", "from accelerate.utils import gather_object"),
        ("training.trainer", "import torch\n\ndef f():\n    torch.distributed.barrier()"),
        ("data.loader", "import torch.distributed as dist"),
        ("data.loader", "from torch import distributed"),
        ("training.trainer", "import wandb"),
        ("tracking.local", "from accelerate.state import PartialState"),
        ("training.build", "def f():\n    from deepspeed import zero"),
    ],
)
def test_the_checker_finds(module: str, source: str) -> None:
    assert len(violations(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("tasks.cgan", "from colordist.data.loader import Batch\nfrom colordist.models.blocks import Up"),
        ("engine.runtime", "import accelerate, torch.distributed\nfrom colordist.tasks.base import Task"),
        ("tracking", "import wandb\nimport wandb_like"),
        ("tracking.local", "from accelerate.tracking import TensorBoardTracker"),
        ("data.loader", "import torch\nfrom torch.utils import data"),
        ("models.unet", "from .blocks import Up"),
    ],
)
def test_the_checker_lets_pass(module: str, source: str) -> None:
    assert violations(source, module) == []


def test_the_checker_finds_a_cycle() -> None:
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["b", "c", "b"]
    assert cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
