"""Description of a run before it starts: settings, batch arithmetic, parameters, memory."""

from dataclasses import replace

import yaml
from torch._subclasses.fake_tensor import FakeTensorMode

from colordist import registry
from colordist.config import Config, FileDataConfig, as_dict
from colordist.data.source import ImageSource
from colordist.engine.environment import device_type, resolve_precision, zero_stage
from colordist.engine.network import Network
from colordist.errors import UserError
from colordist.files.memory import device_memory
from colordist.tasks.base import Task
from colordist.training.batch_arithmetic import BatchArithmetic
from colordist.training.build_task import build_networks, build_task
from colordist.training.memory import Memory, build_fake, estimate


def describe(config: Config, batches: BatchArithmetic) -> str:
    """Format the resolved settings, the batch arithmetic, parameter counts and the memory estimate."""
    settings = yaml.safe_dump(as_dict(config), sort_keys=False)
    device, precision = "cuda" if device_type() == "cuda" else "cpu", config.train.precision
    if precision == "auto":
        precision = resolve_precision(precision, device)
    config = replace(config, train=replace(config.train, precision=precision))

    def build() -> tuple[Task, dict[str, Network]]:
        task = build_task(config, batches.processes, copies=0)
        return task, build_networks(task, config)

    fake: FakeTensorMode | None
    try:
        (task, networks), fake = build_fake(build, precision, device)
    except UserError:
        raise
    except Exception:  # networks that need real tensors while they are built, as those of timm
        (task, networks), fake = build(), None
    memory = estimate(task, networks, config, batches, device, fake)
    counts = [f"{name}: {network.trainable_parameter_count():,} parameters" for name, network in networks.items()]
    return "\n".join([settings, str(batches), *counts, _memory_line(memory, config, batches, device)])


def _memory_line(memory: Memory, config: Config, batches: BatchArithmetic, device: str) -> str:
    """The memory of a training process, beside that of a device like the one here: one line."""
    undivided = "" if zero_stage() is None else ", before ZeRO partitions it"
    what = f"memory per process ({device}, {config.train.precision}{undivided})"
    line = f"{what}: {memory}, plus PyTorch itself and {_images(config)}"
    available = device_memory(device)
    if memory.peak <= available:
        return line
    halve = f"try train.micro_batch_size {max(1, batches.micro_batch_size // 2)}"
    checkpointing = "" if config.train.activation_checkpointing else ", or train.activation_checkpointing true"
    return f"{line}; more than the {available / 2**20:.0f} MiB there are: {halve}{checkpointing}"


def _images(config: Config) -> str:
    """Memory of the images: of all training images where it is known, else of one."""
    data = config.data
    resize = data.resize if isinstance(data, FileDataConfig) and data.crop == "random" else None
    image, test_image = (f"{3 * side**2 / 2**10:.0f} KiB" for side in (resize or data.image_size, data.image_size))
    source: ImageSource = registry.component("source", data.source)(data)
    size = source.training_bytes()
    if size is None:
        return f"the images ({image} each)"
    training = f"{size / 2**20:.0f} MiB for training" if size else "those for training streamed"
    return f"the images ({training}, {test_image} for each test image)"
