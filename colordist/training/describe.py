"""What a run would do: settings, batch arithmetic, parameters, memory."""

from dataclasses import replace

import yaml

from colordist.config import Config, as_dict
from colordist.engine.environment import device_type, resolve_precision, zero_stage
from colordist.tasks.base import Task
from colordist.training.batch_arithmetic import BatchArithmetic
from colordist.training.build_task import build_networks, build_task
from colordist.training.memory import estimate


def describe(config: Config, batches: BatchArithmetic) -> str:
    """The resolved settings, the batch arithmetic, parameters and memory, as text."""
    task = build_task(config)
    networks = build_networks(task, config)
    task.networks = networks  # type: ignore[assignment]
    counts = [f"{name}: {network.parameter_count():,} parameters" for name, network in networks.items()]
    settings = yaml.safe_dump(as_dict(config), sort_keys=False)
    return "\n".join([settings, str(batches), *counts, estimate_memory(task, config, batches)])


def estimate_memory(task: Task, config: Config, batches: BatchArithmetic) -> str:
    """The memory that a process will need to train a task, if its device is one like here."""
    device, precision = "cuda" if device_type() == "cuda" else "cpu", config.train.precision
    if precision == "auto":
        precision = resolve_precision(precision, device)
    memory = estimate(task, replace(config, train=replace(config.train, precision=precision)), batches, device)
    image = f"{3 * config.data.image_size**2 / 2**10:.0f} KiB"
    undivided = "" if zero_stage() is None else ", before ZeRO divides it"
    return (
        f"memory per process ({device}, {precision}{undivided}): {memory}, besides PyTorch itself and the images "
        f"({image} each; of `shards`, only those to be scored on)"
    )
