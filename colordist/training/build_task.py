"""Construction of a task and its networks from the config."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from colordist import registry
from colordist.config import Config
from colordist.engine.consistency import check_same
from colordist.engine.environment import device_type
from colordist.engine.network import Network
from colordist.engine.runtime import Engine
from colordist.errors import UserError
from colordist.files.memory import device_memory, require_memory
from colordist.files.paths import model_path
from colordist.metrics.metric import EvalSet
from colordist.metrics.optional import build_metrics
from colordist.models.activation_checkpointing import enable_activation_checkpointing
from colordist.models.factory import ModelFactory
from colordist.models.parts import part_of
from colordist.optimizers import GeneratorOptimizerConfig, Part
from colordist.run import snapshot
from colordist.tasks.base import NetworkSpec, Task
from colordist.training.batch_arithmetic import BatchArithmetic, batch_arithmetic
from colordist.training.initial_weights import InitialWeights, load_initial_weights

_COPIES = 4  # weights, gradients, Adam's two moments


def build_task(config: Config, processes: int = 1, *, copies: int = _COPIES) -> Task:
    """Build the task of one of so many processes, with its modules.

    Weights depend on the seed alone, so they are the same on every process. Raises UserError if the processes can't
    share the global batch equally, or if ``copies`` of a network's weights don't fit into this machine; 0: no limit.
    """
    batches = batch_arithmetic(config.train, processes)
    if copies:
        _require_memory(config, batches)
    task: Task = registry.component("task", config.task.name)(config.task, config.model)
    task.networks = task.build(ModelFactory(config.seed, config.model, config.discriminator, copies))
    task.state = task.initial_state(batches.per_process, config.data.image_size)
    return task


def _require_memory(config: Config, batches: BatchArithmetic) -> None:
    """Raise UserError if a micro-batch's images and first features alone don't fit on the device."""
    count, size, device = batches.micro_batch_size, config.data.image_size, device_type()
    each = 4 * size**2 * (3 + config.model.full_size_channels)
    what = f"train.micro_batch_size: {count:,} images of {size}x{size}"
    fitting = max(1, device_memory(device) // each // 10)
    require_memory(count * each, device, what, f"try train.micro_batch_size {fitting}")


def load_pretrained(task: Task, config: Config, engine: Engine) -> str | None:
    """Load pretrained weights into a task's modules. Returns their digest, None without any.

    The generator of `train.init_from` needs none, as the snapshot has all its weights: so fine-tuning works offline.
    """
    modules = _pretrained_modules(task, config)
    if not modules:
        return None

    def load() -> list[str]:
        with torch.random.fork_rng(devices=[]):  # timm draws random weights first
            digests = [module.load_pretrained() for module in modules]
        return [digest for digest in digests if digest is not None]

    digest = " ".join(engine.fetch(load, "loading pretrained weights")) or None
    check_same(engine, "has other pretrained weights", digest, "give all machines the same file, or one shared cache")
    return digest


def _pretrained_modules(task: Task, config: Config) -> list[Any]:
    """The modules of a task that begin with pretrained weights."""
    complete = task.sampled[0] if config.train.init_from is not None and config.train.init_strict else None
    networks = [spec.module for name, spec in task.networks.items() if name != complete]
    return [module for module in (*networks, *task.frozen.values()) if hasattr(module, "load_pretrained")]


def check_weights(config: Config) -> None:
    """Load all weights that a run begins with, and those of its metrics, in one process, for a check before it.

    Fetches what is missing. Raises UserError or RunError for weights that can't be had or don't fit.
    """
    task = build_task(config)
    for module in _pretrained_modules(task, config):
        module.load_pretrained()
    train = config.train
    if train.init_from is not None:
        generator = build_networks(task, config)[task.sampled[0]]
        load_initial_weights(generator, config, model_path(train.init_from), strict=train.init_strict)
    used = frozenset((*config.task.pretrained, *config.model.pretrained))
    build_metrics(config.evaluate.metrics, EvalSet(config.data.image_size, torch.device("cpu"), trained_with=used))


def build_networks(task: Task, config: Config) -> dict[str, Network]:
    """Build the task's networks with optimizer, learning-rate schedule and EMA, by name."""
    networks = {name: _build_network(spec, config) for name, spec in task.networks.items()}
    if config.train.activation_checkpointing:
        for network in networks.values():
            enable_activation_checkpointing(network.module)  # the EMA copy is for inference: nothing to recompute
    return networks


def _build_network(spec: NetworkSpec, config: Config) -> Network:
    optimizer, train = config.optimizer[spec.optimizer], config.train
    if not spec.ema:
        return Network(spec.module, optimizer, train.steps)
    scales = optimizer.lr_scales if isinstance(optimizer, GeneratorOptimizerConfig) else {}
    _check_parts(spec.module, config, {"train.freeze": train.freeze, f"optimizer.{spec.optimizer}.lr_scales": scales})
    return Network(
        spec.module, optimizer, train.steps, ema_images=train.ema_images, frozen=train.freeze, lr_scales=scales
    )


def _check_parts(module: nn.Module, config: Config, settings: Mapping[str, Collection[Part]]) -> None:
    """Raise UserError if settings name a part that the generator doesn't have, or freeze all that it has."""
    present = {part_of(module, name) for name, _ in module.named_parameters()}
    for key, parts in settings.items():
        for part in parts:
            if part not in present:
                raise UserError(f"{key} has {part}, but model.name {config.model.name} has no {part}: remove it")
    if present <= {*config.train.freeze}:
        raise UserError(f"train.freeze names all parts of model.name {config.model.name}: nothing would be trained")


def initialize(
    generator: Network, config: Config, engine: Engine, began_with: Path | None = None
) -> InitialWeights | None:
    """Load the initial weights of `train.init_from`; None without any.

    began_with: the model that the run began with, at its commit, if it is one of the Hub: its branch may have moved.
    """
    train = config.train
    if train.init_from is None:
        return None
    given, label = began_with or model_path(train.init_from), "fetching initial weights"

    def pin() -> Path:
        with engine.stall_exempt(label):
            return snapshot.pinned(given)

    source: Path = engine.from_main(engine.on_ranks(pin, here=engine.is_main))
    digest = engine.fetch(lambda: load_initial_weights(generator, config, source, strict=train.init_strict), label)
    check_same(engine, "begins with other weights", digest, "give all machines the same snapshot")
    return InitialWeights(digest, None if snapshot.find_local(source) else str(source))
