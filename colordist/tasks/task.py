"""What a task is: what is learned, in which turns. It knows nothing of processes, devices or precision."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from colordist.data.loader import Batch
from colordist.network import Network

Calls = Mapping[str, Callable[..., Tensor]]
"""The networks as they may be called in a turn: the one that learns, and the others, frozen."""


@dataclass(frozen=True)
class Loss:
    """What a phase makes small: ``total``, a scalar; and its parts by name, for the log."""

    total: Tensor
    parts: dict[str, Tensor]


class Task(Protocol):
    """Owns its networks, its losses and its phases."""

    networks: dict[str, Network]
    """By name."""
    generators: tuple[str, ...]
    """Those that ``generate`` runs."""

    def phases(self, step: int) -> tuple[str, ...]:
        """The networks that learn in a step, in order: each has one turn."""
        ...

    def generate(self, calls: Calls, batch: Batch) -> Tensor:
        """The generator's colours [B, C, H, W] for a batch. All phases of a step look at the same ones."""
        ...

    def loss(self, phase: str, calls: Calls, batch: Batch, color: Tensor, step: int) -> Loss:
        """The loss of the phase's network, averaged over the batch. ``color`` is what ``generate`` answered."""
        ...
