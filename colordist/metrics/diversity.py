"""How much a network's answers to one image differ."""

from itertools import combinations

import torch
from torch import Tensor

from colordist.metrics.ciede2000 import ciede2000
from colordist.metrics.metric import EvalBatch, mean_over_images


def _per_image(eval_batch: EvalBatch) -> Tensor:
    if eval_batch.variants is None:
        return torch.zeros(0)
    pairs = combinations(eval_batch.lab_of_answers, 2)
    return torch.stack([ciede2000(one, other).flatten(1).mean(dim=1) for one, other in pairs]).mean(dim=0)


DIVERSITY = mean_over_images("diversity", "Diversity", "higher", _per_image)
"""Mean over images, pixels and pairs of answers to one image of their CIEDE2000 difference; none with one answer.

More isn't better without end: the quickstart's true images, their objects coloured anew for each answer, have 3.7.
"""
