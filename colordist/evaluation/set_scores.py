"""Scores of a whole set of images that is divided among all ranks, bit-equal on any number of processes."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from colordist.engine.runtime import Engine
from colordist.metrics.features import FeatureScores
from colordist.metrics.metric import EvalBatch, Metric
from colordist.metrics.scorer import Scorer

Scores = dict[str, float]
"""By the metric's name."""
Metrics = Sequence[Metric | FeatureScores]


class SetFeatures:
    """Features of all images of a set, by each feature network."""

    def __init__(self, metrics: Metrics, images: int, engine: Engine) -> None:
        self.networks = [each for each in metrics if isinstance(each, FeatureScores)]
        self._engine = engine
        # Zeros: the all-reduce adds the rows of other ranks.
        self._rows = [torch.zeros(images, each.width, dtype=torch.float64) for each in self.networks]

    def update(self, start: int, rgb: Tensor) -> None:
        """Fill in the rows of a batch. start: index of its first image; rgb: uint8 [B, 3, H, W]."""
        for each, rows in zip(self.networks, self._rows, strict=True):
            rows[start : start + len(rgb)] = each.features(rgb).cpu().double()

    def gather(self) -> list[Tensor]:
        """All-reduce: features of all images by network, float64 [images, width] each, on the CPU."""
        return [self._engine.sum(rows) for rows in self._rows]


class SetScores:
    """Adds up the metrics of one prediction for each image of a set."""

    def __init__(self, metrics: Metrics, images: int, size: int, engine: Engine) -> None:
        """size: images per row of sums. A row is filled by one rank, and rows are added in the order of images."""
        self._metrics = [each for each in metrics if isinstance(each, Metric)]
        self._size, self._engine = size, engine
        self._sums = torch.zeros(-(-images // size), len(self._scorer().sums), dtype=torch.float64)
        self._features = SetFeatures(metrics, images, engine)

    def update(self, start: int, eval_batch: EvalBatch) -> Scores:
        """Add a batch of at most ``size`` images, within one row. start: index of its first image.

        Returns the scores of this batch alone; nan when nothing in it is counted.
        """
        scorer = self._scorer()
        scorer.update(eval_batch)
        self._sums[start // self._size] += scorer.sums
        self._features.update(start, eval_batch.prediction)
        return scorer.scores(scorer.sums)

    def scores(self, target: Sequence[Tensor], colored: Tensor) -> Scores:
        """All-reduce, and compute the scores of the set, without those that are undefined.

        target: features of the targets, as gathered; colored: bool [images], whether a target has any colour.
        """
        found = self._scorer().scores(self._engine.sum(self._sums).sum(dim=0))
        for each, rows, others in zip(self._features.networks, self._features.gather(), target, strict=True):
            compared = each.scores(rows[colored], others[colored])
            found |= dict(zip([spec.name for spec in each.specs], compared, strict=True))
        return {name: score for name, score in found.items() if not math.isnan(score)}

    def _scorer(self) -> Scorer:
        return Scorer(self._metrics)
