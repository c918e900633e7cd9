"""Overlap of the colour histograms of the whole set, wherever colours lie in the images."""

import torch
from torch import Tensor

from colordist.metrics.metric import EvalBatch, Metric

WIDTH = 10  # of a bin, in a and in b
_STEPS = 11  # bins to either side of the one around 0: their centres span -110 to 110
_SIDE = 2 * _STEPS + 1


def _joint_histogram(lab: Tensor) -> Tensor:
    """Count the pixels in each bin of (a, b). Bins are centred on multiples of WIDTH, so that grey is inside one.

    lab: [B, 3, H, W]. Returns float64 [_SIDE * _SIDE] on the CPU.
    """
    a, b = (lab[:, 1:] / WIDTH).round().clamp(-_STEPS, _STEPS).long().add(_STEPS).unbind(1)
    return torch.bincount((a * _SIDE + b).flatten(), minlength=_SIDE * _SIDE).cpu().double()


def _sums(eval_batch: EvalBatch) -> Tensor:
    return torch.cat([_joint_histogram(lab) for lab in eval_batch.lab])


def _score(sums: Tensor) -> float:
    prediction, target = sums.chunk(2)
    return float(torch.minimum(prediction / prediction.sum(), target / target.sum()).sum())


HISTOGRAM = Metric("histogram", "a,b overlap", "higher", 2 * _SIDE * _SIDE, _sums, _score, digits=3)
"""Intersection (Swain, Ballard 1991) of the joint a,b histograms of all predictions and of all targets, in [0, 1].

Bins are 10 wide. Blind to position: predictions with the wrong colour of each object may score 1.
"""
