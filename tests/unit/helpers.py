"""Shared helpers: settings by dotted key, configs of runs that take a second, random batches and networks."""

import dataclasses
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_type_hints

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from colordist import registry
from colordist.config import COMMON, Config, GeneratorSettings, as_dict
from colordist.data.batch import Batch
from colordist.data.sampler import UNIFORMS
from colordist.engine import monitor
from colordist.engine.network import Network
from colordist.engine.runtime import Engine
from colordist.keys import flatten, nest
from colordist.models.factory import build_generator
from colordist.registry import Names
from colordist.run import snapshot
from colordist.tasks.autoencoder import AutoencoderSettings, AutoencoderTask
from colordist.tasks.base import Task
from colordist.training.build_task import build_networks, build_task

ROOT = Path(__file__).parents[2]


def leaves(names: Names | None = None) -> Iterator[tuple[str, Any]]:
    """All keys of a selection of components, with their types: ``("train.steps", int), ...``."""
    chosen = names or Names()
    optimizers = {f"optimizer.{name}": kind for name, kind in registry.optimizers(chosen).items()}
    yield from (("seed", int), ("resume", Literal["auto", "never"]))
    for section, kind in {**registry.sections(chosen), **optimizers, **COMMON}.items():
        hints = get_type_hints(kind)
        yield from ((f"{section}.{field.name}", hints[field.name]) for field in dataclasses.fields(kind))


def config_with(settings: Mapping[str, Any], base: Config | None = None) -> Config:
    """Build a config from settings by dotted key, ``{"train.steps": 5}``, and defaults."""
    before = flatten(as_dict(base)) if base else {}
    return registry.make_config(nest(before | dict(settings)))


def fitting(common: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """A run's own settings, plus those of the common ones that its components have. All by dotted key."""
    known = {key for key, _ in leaves(Names.of(nest(own)))}
    return {key: value for key, value in common.items() if key in known} | dict(own)


TINY: dict[str, Any] = {
    "data.train_images": 12,
    "data.test_images": 4,
    "model.width": 4,
    "model.depth": 1,
    "discriminator.width": 4,
    "discriminator.depth": 1,
    "task.warmup_steps": 0,
    "task.gradient_loss_weight": 0.0,
    "train.steps": 6,
    "train.global_batch_size": 4,
    "train.precision": "fp32",
    "train.ema_images": 8,
    "log.every": 2,
    "evaluate.every": 6,
    "checkpoint.every": 3,
}


def tiny(**settings: Any) -> Config:  # noqa: ANN401  any setting
    """Config of a run of about a second. Keys are written with two underscores: ``train__steps=5``."""
    return config_with(fitting(TINY, {key.replace("__", "."): value for key, value in settings.items()}))


def prepared(config: Config) -> tuple[Engine, Task, dict[str, Network]]:
    """Build an engine, a task and its networks, ready for a step."""
    engine, task = Engine(config.train.precision), build_task(config)
    networks = build_networks(task, config)
    engine.prepare(task, networks)
    return engine, task, networks


def random_batch(
    count: int,
    size: int = 16,
    channels: int = 2,
    dtype: torch.dtype = torch.float64,
    noise: tuple[int, ...] = (1, 0),
) -> Batch:
    """A batch of random images. noise: shape of the noise, candidates first."""
    random = torch.Generator().manual_seed(count)
    grey = torch.rand(count, 1, size, size, generator=random, dtype=dtype) * 2 - 1
    target = torch.randn(count, channels, size, size, generator=random, dtype=dtype)
    uniforms = torch.rand(count, UNIFORMS, generator=random, dtype=dtype)
    target_grey = torch.rand(count, 1, size, size, generator=random, dtype=dtype) * 2 - 1
    drawn = torch.randn(count, *noise, generator=random, dtype=dtype)
    return Batch(grey, target, uniforms, drawn, target_grey, torch.arange(count), target[:, :0])


def batch_of(grey: torch.Tensor, target: torch.Tensor) -> Batch:
    """A batch with constant uniforms and without noise."""
    count = len(grey)
    uniforms, noise = grey.new_full((count, UNIFORMS), 0.5), grey.new_zeros(count, 0, 0)
    return Batch(grey, target, uniforms, noise, grey, torch.arange(count), target[:, :0])


def random_generator(settings: GeneratorSettings, std: float = 1.0) -> nn.Module:
    """A generator in eval mode with all weights random, as a newly built one predicts grey."""
    torch.manual_seed(0)
    module = build_generator(settings)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=std)
    return module.eval()


def timm_weights(path: Path, model: str, seed: int = 1) -> Path:
    """Save random weights of a whole timm model, as timm does. Returns the path."""
    import timm

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        save_file(timm.create_model(model).state_dict(), path)
    return path


def write_snapshot(
    folder: Path,
    settings: GeneratorSettings,
    generator: nn.Module,
    *,
    hints: bool = False,
    **about: Any,  # noqa: ANN401
) -> None:
    """Write a snapshot of a generator, with the task ``autoencoder``."""
    task = AutoencoderTask(AutoencoderSettings(name="autoencoder", hints=hints), settings)
    snapshot.write(folder, task, {"generator": generator}, about)


def clean_environment() -> dict[str, str]:
    """This process's environment without the variables of launchers, for subprocesses."""
    left = ("RANK", "WORLD_SIZE", "GROUP_RANK", "LOCAL_", "MASTER_", "ACCELERATE_", "TORCHELASTIC_", "PET_", "FSDP_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(left)}
    # Subprocesses import this checkout and the shared helpers. Their OpenMP threads don't spin, which halves the time
    # where there are more processes than cores.
    found = os.pathsep.join([str(ROOT), str(ROOT / "tests/unit")])
    return environment | {"PYTHONPATH": found, "GOMP_SPINCOUNT": "0"}


@contextmanager
def alone_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A single process without a GPU. Restores all process-wide settings that an engine changes."""
    from accelerate.state import AcceleratorState, PartialState

    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name in [name for name in os.environ if name.startswith("ACCELERATE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("colordist.engine.runtime.device_type", lambda: "cpu")
    environment, threads = dict(os.environ), torch.get_num_threads()
    AcceleratorState._reset_state(True)
    try:
        yield
    finally:
        monitor.fail("the test has ended")  # else it would end this process after the stall timeout
        AcceleratorState._reset_state(True)
        PartialState._reset_state()
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(threads)
        os.environ.clear()
        os.environ.update(environment)
