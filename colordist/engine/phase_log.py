"""What a phase logs: scalars that stay on the device."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from colordist.tasks.base import Loss


@dataclass(frozen=True)
class PhaseLog:
    """Losses and diagnostics of a phase, averaged over its micro-batches."""

    phase: str
    values: dict[str, Tensor] = field(default_factory=dict)
    """By "kind/network/quantity"."""

    def add(self, loss: Loss, weight: float) -> None:
        """Add a micro-batch. weight: its share of the images."""
        losses = {f"loss/{self.phase}/{name}": term for name, term in loss.terms.items()}
        for key, value in (losses | self._diagnostics(loss.diagnostics)).items():
            part = weighted(value.detach(), weight)
            self.values[key] = self.values[key] + part if key in self.values else part

    def finish(self, update: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All entries of the phase, with those of ``Strategy.update``.

        A skipped update is counted but enters no mean. Stacked: one kernel launch instead of one for each value.
        """
        values = self.values | self._diagnostics(update)
        skipped = {key: values.pop(key) for key in self._diagnostics({"skipped": update["skipped"]})}
        kept = torch.stack(list(values.values())).masked_fill_(update["skipped"] != 0, 0).unbind()
        return dict(zip(values, kept, strict=True)) | skipped

    def _diagnostics(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {f"diagnostics/{self.phase}/{name}": value for name, value in values.items()}


def weighted(value: Tensor, weight: float) -> Tensor:
    """A micro-batch's share of a mean. Without accumulation no operation."""
    return value if weight == 1 else value * weight
