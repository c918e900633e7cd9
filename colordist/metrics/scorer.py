"""Scores a whole test split, batch by batch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from colordist.metrics.metric import EvalBatch, Metric


class Scorer:
    """Sums up metrics over a test split.

    Targets without any colour are not counted, as in Nazeri et al. 2018: there is nothing to colour in them.
    """

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = tuple(metrics)
        self._sums = torch.zeros(sum(metric.size for metric in self._metrics), dtype=torch.float64)

    def update(self, eval_batch: EvalBatch) -> None:
        """Add a batch."""
        eval_batch = eval_batch.colored()
        if len(eval_batch.target):
            self._sums += torch.cat([metric.sums(eval_batch) for metric in self._metrics])

    @property
    def sums(self) -> Tensor:
        """Sums of this process, to be added over all: float64, on the CPU, of the same length in every process."""
        return self._sums.clone()

    def scores(self, sums: Tensor) -> dict[str, float]:
        """The score of each metric by its name, from the sums over all processes; nan when nothing was counted."""
        parts = torch.split(sums, [metric.size for metric in self._metrics])
        return {metric.name: metric.score(part) for metric, part in zip(self._metrics, parts, strict=True)}
