"""How much memory a process will need: an estimate, before anything is trained.

A step is played through with tensors that have a size but no contents, and the bytes of those that live at the same
time are counted: activations, gradients of both kinds, what the optimizer keeps, and whatever a loss makes on its way.
"""

import copy
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from colordist.color import ColorSpace
from colordist.config import BatchArithmetic, Config
from colordist.data.loader import Batch
from colordist.data.sampler import UNIFORMS, micro_batches
from colordist.engine.network import Network
from colordist.tasks.base import Task

_NARROW = {"bf16": torch.bfloat16, "fp16": torch.float16}
_STEPS = 2  # the first makes what the optimizer keeps, so the second needs more


@dataclass(frozen=True)
class Memory:
    """Bytes that one process needs on its device, by what they are for."""

    lasting: int
    """What it has between two steps: weights, gradients, Adam's two moments, the generator's EMA copy, pools."""
    peak: int
    """The most that it has at once within a step."""

    def __str__(self) -> str:
        whole, lasting, passing = (f"{n / 2**20:.0f}" for n in (self.peak, self.lasting, self.peak - self.lasting))
        return f"about {whole} MiB (weights, gradients, Adam, EMA {lasting}; activations {passing})"


def estimate(
    task: Task, networks: Mapping[str, Network], config: Config, batches: BatchArithmetic, device: str = "cpu"
) -> Memory:
    """Estimate the memory of a process that trains a task on a device, to which it moves the networks.

    config: with a number format that isn't `auto`. The step is one after the warm-up, as the engine takes it with
    DistributedDataParallel and without ``train.compile``: what DeepSpeed divides among processes counts as whole. What
    an operation needs for itself alone, a convolution's workspace, say, isn't seen.
    """
    dtype = torch.float64 if config.train.precision == "fp64" else torch.float32
    for network in networks.values():
        for module in _modules(network):
            module.to(device=device, dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    task.state = {name: rows.to(device, dtype) for name, rows in task.state.items()}
    fake, live = FakeTensorMode(), LiveBytes()
    with FakeCopyMode(fake):
        task, networks = copy.deepcopy((task, networks))
    modules = [module for network in networks.values() for module in _modules(network)]
    live.add(chain(*(chain(module.parameters(), module.buffers()) for module in modules), task.state.values()))
    with fake, live:
        turns = {name: _Turn(each, config.train.precision, batches) for name, each in networks.items()}
        sample_slices = _batches(config, batches, device, dtype)
        for step in range(config.loss.warmup_steps, config.loss.warmup_steps + _STEPS):
            _play(task, turns, sample_slices, step)
        del sample_slices
    return Memory(live.now, live.most)


class LiveBytes(TorchDispatchMode):
    """While it is on, counts the bytes that tensors hold: those it was told of, and those that are made."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        self.most = 0
        self._storages: set[int] = set()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:  # noqa: ANN401  whatever an operation returns
        """Do what is asked, and count what comes of it."""
        answer = func(*args, **(kwargs or {}))
        self.add(tree_leaves(answer))
        return answer

    def add(self, tensors: Iterable[Any]) -> None:
        """Count what tensors hold, once for all that share it. Anything else is passed over."""
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


class _Turn:
    """A network as an engine runs it."""

    def __init__(self, network: Network, precision: str, batches: BatchArithmetic) -> None:
        self.network, self.narrow = network, _NARROW.get(precision)
        self.last = False
        if batches.processes > 1:
            for parameter in network.trainable_parameters:
                parameter.register_post_accumulate_grad_hook(partial(self._send, torch.empty_like(parameter)))

    def __call__(self, *inputs: Tensor) -> Tensor:
        """As Accelerate calls it: in half precision it answers in float32 all the same."""
        with torch.autocast(inputs[0].device.type, self.narrow, enabled=self.narrow is not None):
            answer: Tensor = self.network.module(*inputs)
        return answer if self.narrow is None else answer.float()

    def _send(self, batch_index: Tensor, parameter: Tensor) -> None:
        """With the last micro-batch, gradients go where DistributedDataParallel sends them from."""
        if self.last:
            parameter.grad = batch_index


def _batches(config: Config, batches: BatchArithmetic, device: str, dtype: torch.dtype) -> list[Batch]:
    """A process's micro-batches of a step."""
    size, model = config.data.image_size, config.model
    channels = ColorSpace(model.color_space).channels
    empty = partial(torch.empty, device=device, dtype=dtype)

    def batch(count: int) -> Batch:
        grey = empty(count, 1, size, size)
        return Batch(
            grey=grey,
            target=empty(count, channels, size, size),
            uniforms=empty(count, UNIFORMS),
            noise=empty(count, config.loss.candidates, model.noise),
            target_grey=torch.empty_like(grey) if config.task == "cyclegan" else grey,
            batch_index=torch.arange(count, device=device),
        )

    most = -(-batches.per_process // batches.accumulation)
    return [batch(part.stop - part.start) for part in micro_batches(batches.per_process, most)]


def _play(task: Task, turns: Mapping[str, _Turn], batches: list[Batch], step: int) -> None:
    """A step as ``Engine.step`` takes it, but for what it logs and checks."""
    generated = None
    if len(batches) == 1:
        _set_trainable(turns, task.generators)
        generated = task.generate(turns, batches[0])
    for phase in task.phases(step):
        turn, network = turns[phase], turns[phase].network
        network.begin_phase(step)
        _set_trainable(turns, (phase,))
        for batch in batches:
            turn.last = batch is batches[-1]
            answer = task.generate(turns, batch) if generated is None else generated
            loss = task.loss(phase, turns, batch, answer, step)
            loss.total.backward()
        network.optimizer.step()
        if network.ema is not None:
            network.ema.update(network.module, images=step * len(batch), batch=len(batch))


def _set_trainable(turns: Mapping[str, _Turn], names: Collection[str]) -> None:
    for name, turn in turns.items():
        turn.network.set_trainable(name in names)
