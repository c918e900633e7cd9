"""Losses that several tasks use. All are computed in at least float32 and averaged over the batch."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def pixel_distance(kind: Literal["l1", "l2"], color: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute (l1) or squared (l2) difference over all pixels and channels: a scalar."""
    return F.l1_loss(color, truth) if kind == "l1" else F.mse_loss(color, truth)


def difference_distance(kind: Literal["l1", "l2"], color: Tensor, truth: Tensor) -> Tensor:
    """Distance between differences of neighbouring pixels, to the right and below: a scalar.

    Gradient difference loss (Mathieu et al. 2016, arXiv 1511.05440). It asks an evenly coloured thing to be evenly
    coloured, in whatever colour.
    """
    right = pixel_distance(kind, color.diff(dim=-1), truth.diff(dim=-1))
    below = pixel_distance(kind, color.diff(dim=-2), truth.diff(dim=-2))
    return (right + below) / 2


def cross_entropy(logits: Tensor, target: float) -> Tensor:
    """Binary cross-entropy of logits of any shape against one target in [0, 1] (Goodfellow et al. 2014): a scalar."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))
