"""What each choice that makes a step fast is worth: the trainer as it is beside the trainer with one thing otherwise.

    python benchmarks/choices.py --json choices.json
    python benchmarks/choices.py --arms "compiled" "bf16" --set data.image_size=256 train.global_batch_size=4

Told is how long a step takes, over how long it takes as it is: above 1, the choice is the right one. "huge pages", "one
thread" and the arms after it are not what the trainer does by itself. All arms are in memory at once, about
1 GB each.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from harness import Arm, Training, main, trainer
from torch import Tensor

from colordist.config import Config
from colordist.data.loader import Batch
from colordist.engine.network import Network
from colordist.engine.runtime import Engine
from colordist.tasks.base import Calls, Task
from colordist.tasks.cgan import CGANTask
from colordist.training.trainer import Trainer


def altered(change: Callable[[Trainer], object]) -> Arm:
    """The trainer, changed once it is built."""

    @contextmanager
    def start(config: Config) -> Iterator[Training]:
        with trainer(config) as training:
            assert training.trainer is not None
            change(training.trainer)
            yield training

    return Arm(start)


def patched(replacement: AbstractContextManager[Any]) -> Arm:
    """The trainer with other code."""

    @contextmanager
    def start(config: Config) -> Iterator[Training]:
        with replacement, trainer(config) as training:
            yield training

    return Arm(start)


def _contiguous(trainer: Trainer) -> None:
    """Weights as PyTorch lays them out by itself; images follow."""
    for network in trainer.task.networks.values():
        for module in [network.module] + ([network.ema.module] if network.ema else []):
            module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def _adam(**how: bool) -> Callable[[Trainer], None]:
    def otherwise(trainer: Trainer) -> None:
        for network in trainer.task.networks.values():
            network.optimizer = torch.optim.Adam(network.trainable_parameters, betas=(0.5, 0.99), **how)
            # Others than the fused one can't be told to skip.
            network.optimizer.register_step_pre_hook(lambda adam, *_: setattr(adam, "found_inf", None))

    return otherwise


judge, step, set_trainable = CGANTask._judge, Engine.step, Network.set_trainable


def _in_halves(self: CGANTask, calls: Calls, batch: Batch, colors: Tensor) -> Tensor:
    """The discriminator sees true and generated colours one after the other."""
    return torch.cat([judge(self, calls, batch, part) for part in colors.split(len(batch))])


def _phase_by_phase(self: Engine, task: Task, batches: list[Batch], step: int) -> dict[str, Tensor]:
    """Each phase has its colours made again, as in a loop over phases that knows nothing of the step."""
    log: dict[str, Tensor] = {}
    for phase in task.phases(step):
        log |= self._run_phase(task, phase, batches, None, step)
    return log


def _waits(self: Engine, *arguments: Any) -> dict[str, Tensor]:  # noqa: ANN401  as Engine.step has them
    """Every number is asked for after every step."""
    log = step(self, *arguments)
    for value in log.values():
        value.item()
    return log


ARMS: dict[str, Arm] = {
    "as it is": Arm(),
    "as it is, again": Arm(),  # what noise makes of no difference at all
    "freed memory given back": patched(patch("colordist.engine.runtime.keep_freed_memory")),
    "huge pages": Arm(environment={"THP_MEM_ALLOC_ENABLE": "1"}),
    "not channels_last": altered(_contiguous),
    "foreach Adam": altered(_adam(foreach=True)),
    "Adam in a loop": altered(_adam(foreach=False)),
    "discriminator in two passes": patched(patch.object(CGANTask, "_judge", _in_halves)),
    "generator run in each phase": patched(patch.object(Engine, "step", _phase_by_phase)),
    # The generator's phase computes the discriminator's gradients as well, and throws them away.
    "discriminator not frozen": patched(
        patch.object(Network, "wake", lambda self, trainable: set_trainable(self, True))
    ),
    "numbers asked for each step": patched(patch.object(Engine, "step", _waits)),
    "threads that watch for long": Arm(environment={"GOMP_SPINCOUNT": "300000"}),  # the default
    "one thread": altered(lambda _: torch.set_num_threads(1)),
    "gradient checkpointing": Arm(settings={"train.activation_checkpointing": True}),
    "compiled": Arm(settings={"train.compile": "default"}),
    "bf16": Arm(settings={"train.precision": "bf16"}),
}
if torch.cuda.is_available():
    ARMS |= {
        "CUDA graphs": Arm(settings={"train.compile": "graphs"}),
        "cuDNN search": altered(lambda _: setattr(torch.backends.cudnn, "benchmark", True)),
        "TF32": Arm(settings={"train.tf32": True}),
        "fp16": Arm(settings={"train.precision": "fp16"}),
    }

if __name__ == "__main__":
    main(__doc__, ARMS, settings={"train.precision": "fp32"}, rounds=6, steps=2)
