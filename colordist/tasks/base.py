"""What a task is: its networks, the phases of its step and their losses. Knows no processes, devices or precision."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from colordist.data.loader import Batch

Calls = Mapping[str, Callable[..., Tensor]]
"""The networks as callables in a phase: the trainable one by its wrapper, the others frozen."""

Generated = Any
"""Output of a task's generators: colours [B, C, H, W], or several tensors. Only the task looks inside."""


@dataclass(frozen=True)
class NetworkSpec:
    """A network of a task, and how it is to be optimized."""

    module: nn.Module
    optimizer: Literal["generator", "discriminator"]
    """Which section of ``optimizer`` it uses."""
    ema: bool = False
    """Whether its weights are averaged; ``train.freeze`` and ``lr_scales`` apply to these networks."""


@dataclass(frozen=True)
class Loss:
    """Loss of a phase: ``total``, a scalar; and its parts by name, for the log."""

    total: Tensor
    parts: dict[str, Tensor]
    state: dict[str, Tensor] = field(default_factory=dict)
    """New rows of the task's ``state`` at the batch's indices; ignored if the update is skipped."""


class Task(Protocol):
    """Networks, phases and losses."""

    networks: dict[str, NetworkSpec]
    """By name."""
    generators: tuple[str, ...]
    """Networks that ``generate`` runs. The EMA weights of the first are evaluated and saved as snapshots."""
    state: dict[str, Tensor]
    """State besides the networks, by name: tensors with one row for each index in the global batch. A process reads
    and writes the rows of its own share; checkpoints hold all rows."""

    def phases(self, step: int) -> tuple[str, ...]:
        """Names of the networks to train in a step, in order: one phase for each."""
        ...

    def generate(self, calls: Calls, batch: Batch) -> Generated:
        """Run the generators on a batch.

        Called once a step for all phases; with gradient accumulation, again in each phase. So the output must not
        depend on the output of a generator that an earlier phase of the same step has updated.
        """
        ...

    def loss(self, phase: str, calls: Calls, batch: Batch, generated: Generated, step: int) -> Loss:
        """Compute the loss of the phase's network, averaged over the batch. generated: output of ``generate``.

        Must not change any state: it may be called more than once.
        """
        ...
