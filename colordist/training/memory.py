"""Estimate of the memory of a training process.

The engine runs steps on fake tensors, which have shapes but no data, and the bytes of live storages are counted:
weights, activations, gradients, optimizer states and the intermediate results of losses.
"""

import copy
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from colordist.config import Config
from colordist.data.batch import Batch
from colordist.data.sampler import UNIFORMS, even_slices
from colordist.engine.ddp import DDPStrategy
from colordist.engine.monitor import Monitor
from colordist.engine.network import Network
from colordist.engine.runtime import Engine
from colordist.tasks.base import Task
from colordist.training.batch_arithmetic import BatchArithmetic

_NARROW = {"bf16": torch.bfloat16, "fp16": torch.float16}
T = TypeVar("T")
_STEPS = 2  # the first creates the optimizer states, so the second needs more


@dataclass(frozen=True)
class Memory:
    """Memory of one process on its device, in bytes."""

    lasting: int
    """Between two steps: weights, gradients, Adam's moments, the generator's EMA copy, image buffers."""
    peak: int
    """Peak within a step."""

    def __str__(self) -> str:
        whole, lasting, passing = (f"{n / 2**20:.0f}" for n in (self.peak, self.lasting, self.peak - self.lasting))
        return f"about {whole} MiB (weights, gradients, Adam, EMA {lasting}; activations {passing})"


def estimate(
    task: Task,
    networks: Mapping[str, Network],
    config: Config,
    batches: BatchArithmetic,
    device: str = "cpu",
    fake: FakeTensorMode | None = None,
) -> Memory:
    """Estimate the memory of a process that trains a task on a device. Moves the networks there.

    config: with a precision other than `auto`. The step is one after the warm-up, with DistributedDataParallel and
    without ``train.compile``: what DeepSpeed partitions counts in full. Workspaces of operations, as of convolutions,
    aren't counted.

    fake: the mode that the networks were built in, by ``build_fake``. Default: they are real ones.
    """
    dtype = torch.float64 if config.train.precision == "fp64" else torch.float32
    live = LiveBytes()
    if fake is None:
        for module in chain(*map(_modules, networks.values()), task.frozen.values()):
            module.to(device=device, dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        task.state = {name: rows.to(device, dtype) for name, rows in task.state.items()}
        fake = FakeTensorMode()
        with FakeCopyMode(fake):
            task, networks = copy.deepcopy((task, dict(networks)))
    for module in chain(*map(_modules, networks.values()), task.frozen.values()):
        live.add(chain(module.parameters(), module.buffers()))
    live.add(task.state.values())
    with fake, live:
        engine = _Engine(task, networks, config.train.precision, batches.processes, torch.device(device))
        micro = _batches(task, config, batches, device, dtype)
        first = int(getattr(config.task, "warmup_steps", 0))  # from there on all phases run
        for step in range(first, first + _STEPS):
            engine.step(task, micro, step)
        del micro
    return Memory(live.now, live.most)


class _Mode(FakeTensorMode):
    """Fake tensors whose copies are of the same mode."""

    def __deepcopy__(self, memo: object) -> "_Mode":
        return self


def build_fake(build: Callable[[], T], precision: str, device: str) -> tuple[T, FakeTensorMode]:
    """Build task and networks for ``estimate`` on a device, of fake tensors: nothing is allocated."""
    fake, before = _Mode(), torch.get_default_dtype()
    torch.set_default_dtype(torch.float64 if precision == "fp64" else torch.float32)
    try:
        with fake, torch.device(device), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about addresses of fake tensors, which nobody uses
            return build(), fake
    finally:
        torch.set_default_dtype(before)


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of live tensors: those added, and those created while it is active."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        self.most = 0
        self._storages: set[int] = set()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:  # noqa: ANN401  whatever an operation returns
        """Run an operation, and count its results."""
        answer = func(*args, **(kwargs or {}))
        self.add(tree_leaves(answer))
        return answer

    def add(self, tensors: Iterable[Any]) -> None:
        """Count the storages of tensors, each once. Anything else is ignored."""
        for tensor in tensors:
            if isinstance(tensor, Tensor) and (storage := tensor.untyped_storage())._cdata not in self._storages:
                self._storages.add(storage._cdata)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._forget, storage._cdata, storage.nbytes())
        self.most = max(self.most, self.now)

    def _forget(self, storage: int, count: int) -> None:
        self._storages.discard(storage)
        self.now -= count


def _modules(network: Network) -> list[nn.Module]:
    return [network.module] + ([network.ema.module] if network.ema else [])


def _call(module: nn.Module, narrow: torch.dtype | None, *inputs: Tensor, **options: Any) -> Any:  # noqa: ANN401
    """Run a network as Accelerate does: with autocast, and outputs in float32."""
    with torch.autocast(inputs[0].device.type, narrow, enabled=narrow is not None):
        answer = module(*inputs, **options)
    return answer if narrow is None else tree_map(Tensor.float, answer)


class _Engine(Engine):
    """The engine of one process without a process group, for networks that are on their device already."""

    def __init__(
        self, task: Task, networks: Mapping[str, Network], precision: str, processes: int, device: torch.device
    ) -> None:
        self.world_size, self.compiled, self.monitor = processes, "off", Monitor()
        narrow = _NARROW.get(precision)
        self.frozen = {name: partial(_call, module, narrow) for name, module in task.frozen.items()}
        self.strategies = {name: _Strategy(each, precision, processes, device) for name, each in networks.items()}


class _Strategy(DDPStrategy):
    """A stand-in for DistributedDataParallel."""

    def __init__(self, network: Network, precision: str, processes: int, device: torch.device) -> None:
        self.network, self.narrow = network, _NARROW.get(precision)
        self.skipped_in_a_row = torch.zeros((), device=device)
        self.trainable = self.frozen = partial(_call, network.module, self.narrow)  # type: ignore[assignment]
        self.scaler = torch.amp.GradScaler(enabled=False)  # an enabled one would read its scale on the host
        self.bytes_sent = None
        self.last = False
        if processes > 1:
            for parameter in network.trainable_parameters:
                parameter.register_post_accumulate_grad_hook(partial(self._to_bucket, torch.empty_like(parameter)))

    def _to_bucket(self, bucket: Tensor, parameter: Tensor) -> None:
        """Move the gradient into its bucket with the last micro-batch, as DistributedDataParallel does."""
        if self.last:
            parameter.grad = bucket

    def gradient_sync(self, *, last: bool) -> AbstractContextManager[None]:
        """Remember which micro-batch is the last."""
        self.last = last
        return nullcontext()


def _batches(task: Task, config: Config, batches: BatchArithmetic, device: str, dtype: torch.dtype) -> list[Batch]:
    """Empty micro-batches of a process and step."""
    size, channels = config.data.image_size, task.color_space.channels
    empty = partial(torch.empty, device=device, dtype=dtype)

    def batch(count: int) -> Batch:
        grey = empty(count, 1, size, size)
        return Batch(
            grey=grey,
            target=empty(count, channels, size, size),
            uniforms=empty(count, UNIFORMS),
            noise=empty(count, task.candidates, *task.noise_shape(size)),
            target_grey=torch.empty_like(grey) if task.unpaired else grey,
            share_index=torch.arange(count, device=device),
            hints=empty(count, task.hint_channels, size, size),
        )

    most = -(-batches.per_process // batches.accumulation)
    return [batch(part.stop - part.start) for part in even_slices(batches.per_process, most)]
