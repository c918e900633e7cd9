"""What a task is: what is learned, in which turns. It knows nothing of processes, devices or precision."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from colordist.data.loader import Batch
from colordist.engine.network import Network

Calls = Mapping[str, Callable[..., Tensor]]
"""The networks as they may be called in a turn: the one that learns, and the others, frozen."""

Generated = Any
"""What a task's generators answered: colours [B, C, H, W], or several tensors. Only the task looks inside."""


@dataclass(frozen=True)
class Loss:
    """The loss of a phase: ``total``, a scalar, which is minimised; and its parts by name, for the log."""

    total: Tensor
    parts: dict[str, Tensor]
    """Losses alone: scalars."""
    state: dict[str, Tensor] = field(default_factory=dict)
    """What the task's ``state`` is to hold for the batch's places, unless the update is skipped."""
    diagnostics: dict[str, Tensor] = field(default_factory=dict)
    """What else is logged, by name: scalars, e.g. accuracies."""


class Task(Protocol):
    """Owns its networks, its losses and its phases."""

    networks: dict[str, Network]
    """By name."""
    generators: tuple[str, ...]
    """Those that ``generate`` runs. The first is the one that is scored, shown and saved."""
    state: dict[str, Tensor]
    """What it keeps from step to step, besides its networks: by name, each with a row for each place in the global
    batch. A process knows and changes the rows of its own places only; checkpoints hold all of them."""

    def phases(self, step: int) -> tuple[str, ...]:
        """The networks that learn in a step, in order: each has one turn."""
        ...

    def generate(self, calls: Calls, batch: Batch) -> Generated:
        """What the generators make of a batch.

        All phases of a step look at the same. But where the step has several micro-batches, each phase has it made
        again: so it must not look at the answers of a generator that has already learned in the step.
        """
        ...

    def loss(self, phase: str, calls: Calls, batch: Batch, generated: Generated, step: int) -> Loss:
        """The loss of the phase's network, averaged over the batch. generated: what ``generate`` answered.

        It changes nothing by itself: it may be asked for more than once.
        """
        ...
