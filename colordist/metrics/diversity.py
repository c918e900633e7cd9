"""How much a network's predictions for one image differ."""

from itertools import combinations

import torch
from torch import Tensor

from colordist.metrics.ciede2000 import ciede2000
from colordist.metrics.metric import EvalBatch, mean_over_images, mean_over_pixels


def _per_image(eval_batch: EvalBatch) -> Tensor:
    if eval_batch.variants is None:
        return torch.zeros(0)
    pairs = combinations(eval_batch.lab_of_variants, 2)
    return torch.stack([mean_over_pixels(ciede2000(one, other)) for one, other in pairs]).mean(dim=0)


DIVERSITY = mean_over_images("diversity", "Diversity", "higher", _per_image, role="diagnostic")
"""Mean over images, pixels and pairs of predictions for one image of CIEDE2000; none with one prediction.

More is not always better: the quickstart's targets, with objects coloured anew for each prediction, have 3.7.
"""
