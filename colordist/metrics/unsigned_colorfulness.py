"""Colourfulness as many papers of the field report it (CF and delta CF), beside that of Hasler and Suesstrunk.

The evaluation code of DDColor (Kang et al. 2023, arXiv 2212.11613; ``basicsr/metrics/colorfulness.py``) takes the
magnitudes of rg and yb before their mean and deviation, and delta CF is the difference of two means over the set, in
which a dull image makes up for a garish one.
"""

import torch
from torch import Tensor

from colordist.metrics.colorfulness import of_opponents, opponents
from colordist.metrics.metric import EvalBatch, Metric, mean_over_images


def unsigned_colorfulness(rgb: Tensor) -> Tensor:
    """Colourfulness of each image from |rg| and |yb|: uint8 [B, 3, H, W] to float64 [B] on the CPU."""
    return of_opponents(*(channel.abs() for channel in opponents(rgb)))


def _sums(eval_batch: EvalBatch) -> Tensor:
    prediction, target = (unsigned_colorfulness(each) for each in (eval_batch.prediction, eval_batch.target))
    return torch.stack([prediction.sum(), target.sum(), torch.tensor(float(len(target)), dtype=torch.float64)])


def _difference(sums: Tensor) -> float:
    return float((sums[0] - sums[1]).abs() / sums[2])


CF = mean_over_images(
    "cf_unsigned",
    "CF, unsigned",
    "target",
    lambda eval_batch: unsigned_colorfulness(eval_batch.prediction),
    role="diagnostic",
)
"""Mean over images of the predictions' unsigned colourfulness."""

DELTA_CF = Metric("delta_cf_unsigned", "ΔCF, unsigned, of means", "lower", 3, _sums, _difference, role="diagnostic")
"""|mean over predictions - mean over targets| of the unsigned colourfulness."""
