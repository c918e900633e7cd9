"""Several predictions for one image: how far they are from the target, and from each other."""

from itertools import combinations

import torch
from torch import Tensor

from colordist.metrics.ciede2000 import ciede2000
from colordist.metrics.metric import EvalBatch, mean_over_images, mean_over_pixels


def _to_target(eval_batch: EvalBatch) -> Tensor:
    """CIEDE2000 between each prediction and the target: [V, B]; no images where there is one prediction."""
    if eval_batch.variants is None:
        return torch.zeros(1, 0)
    target = eval_batch.lab[1]
    return torch.stack([mean_over_pixels(ciede2000(each, target)) for each in eval_batch.lab_of_variants])


def _between(eval_batch: EvalBatch) -> Tensor:
    if eval_batch.variants is None:
        return torch.zeros(0)
    pairs = combinations(eval_batch.lab_of_variants, 2)
    return torch.stack([mean_over_pixels(ciede2000(one, other)) for one, other in pairs]).mean(dim=0)


CIEDE2000_MEAN = mean_over_images(
    "ciede2000_mean",
    "CIEDE2000, mean of several",
    "lower",
    lambda batch: _to_target(batch).mean(dim=0),
    role="diagnostic",
)
"""CIEDE2000, averaged over several predictions for each image: the expectation of that of one, with less variance."""

CIEDE2000_BEST = mean_over_images(
    "ciede2000_best",
    "CIEDE2000, best of several",
    "lower",
    lambda batch: _to_target(batch).amin(dim=0),
    role="diagnostic",
)
"""CIEDE2000 of the prediction for each image that is nearest to its target. Rewards spread as well as accuracy."""

DIVERSITY = mean_over_images("diversity", "Diversity", "higher", _between, role="diagnostic")
"""Mean over images, pixels and pairs of predictions for one image of CIEDE2000; none with one prediction.

More is not always better: the quickstart's targets, with objects coloured anew for each prediction, have 3.7.
"""
