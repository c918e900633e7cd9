"""Ablation of what makes a step fast: the trainer as it is, compared with the trainer with one thing changed.

    python benchmarks/choices.py --json choices.json
    python benchmarks/choices.py --arms "compiled" "bf16" --set data.image_size=256 train.global_batch_size=4

The ratio is the time of a step over its time as it is: above 1, the change makes it slower. "huge pages", "one thread"
and the arms after it are options that are off by default. All arms are in memory at once, about 1 GB each.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from harness import Arm, Training, main, open_trainer
from torch import Tensor

from colordist.config import Config
from colordist.data.batch import Batch
from colordist.engine.network import Network
from colordist.engine.runtime import Engine
from colordist.tasks.base import Calls, Task
from colordist.tasks.cgan import CGANTask
from colordist.training.trainer import Trainer


def changed(change: Callable[[Trainer], object]) -> Arm:
    """The trainer, changed once it is built."""

    @contextmanager
    def start(config: Config) -> Iterator[Training]:
        with open_trainer(config) as trainer:
            change(trainer)
            yield Training(trainer.advance)

    return Arm(start)


def patched(replacement: AbstractContextManager[Any]) -> Arm:
    """The trainer with other code."""

    @contextmanager
    def start(config: Config) -> Iterator[Training]:
        with replacement, open_trainer(config) as trainer:
            yield Training(trainer.advance)

    return Arm(start)


def _contiguous(trainer: Trainer) -> None:
    """Weights in PyTorch's default memory format; images follow."""
    for network in trainer.engine.networks.values():
        for module in [network.module] + ([network.ema.module] if network.ema else []):
            module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def _adam(**options: bool) -> Callable[[Trainer], None]:
    def change(trainer: Trainer) -> None:
        for network in trainer.engine.networks.values():
            network.optimizer = torch.optim.Adam(network.trainable_parameters, betas=(0.5, 0.99), **options)
            # Only the fused one can skip an update.
            network.optimizer.register_step_pre_hook(lambda adam, *_: setattr(adam, "found_inf", None))

    return change


discriminate, step, set_trainable = CGANTask._discriminate, Engine.step, Network.set_trainable


def _in_halves(self: CGANTask, calls: Calls, batch: Batch, colors: Tensor) -> Tensor:
    """Real and fake colours in two passes of the discriminator."""
    return torch.cat([discriminate(self, calls, batch, part) for part in colors.split(len(batch))])


def _phase_by_phase(self: Engine, task: Task, batches: list[Batch], step: int) -> dict[str, Tensor]:
    """Run the generator in each phase."""
    log: dict[str, Tensor] = {}
    for phase in task.phases(step):
        log |= self._run_phase(task, phase, batches, None, step)
    return log


def _synchronous(self: Engine, *arguments: Any) -> dict[str, Tensor]:  # noqa: ANN401  as Engine.step has them
    """Copy all logged values to the host after every step."""
    log = step(self, *arguments)
    for value in log.values():
        value.item()
    return log


ARMS: dict[str, Arm] = {
    "as it is": Arm(),
    "as it is, again": Arm(),  # noise of the measurement
    "freed memory returned to the system": patched(patch("colordist.engine.runtime.keep_freed_memory")),
    "huge pages": Arm(environment={"THP_MEM_ALLOC_ENABLE": "1"}),
    "not channels_last": changed(_contiguous),
    "foreach Adam": changed(_adam(foreach=True)),
    "Adam in a loop": changed(_adam(foreach=False)),
    "discriminator in two passes": patched(patch.object(CGANTask, "_discriminate", _in_halves)),
    "generator run in each phase": patched(patch.object(Engine, "step", _phase_by_phase)),
    # The generator's phase also computes the discriminator's gradients, in vain.
    "discriminator not frozen": patched(
        patch.object(Network, "set_trainable", lambda self, trainable: set_trainable(self, True))
    ),
    "logged values copied each step": patched(patch.object(Engine, "step", _synchronous)),
    "threads that spin for long": Arm(environment={"GOMP_SPINCOUNT": "300000"}),  # the default
    "one thread": changed(lambda _: torch.set_num_threads(1)),
    "activation checkpointing": Arm(settings={"train.activation_checkpointing": True}),
    "compiled": Arm(settings={"train.compile": "default"}),
    "bf16": Arm(settings={"train.precision": "bf16"}),
}
if torch.cuda.is_available():
    ARMS |= {
        "CUDA graphs": Arm(settings={"train.compile": "graphs"}),
        "cuDNN search": changed(lambda _: setattr(torch.backends.cudnn, "benchmark", True)),
        "TF32": Arm(settings={"train.tf32": True}),
        "fp16": Arm(settings={"train.precision": "fp16"}),
    }

if __name__ == "__main__":
    main(__doc__, ARMS, settings={"train.precision": "fp32"}, rounds=6, steps=2)
