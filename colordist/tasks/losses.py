"""Losses that tasks share, in at least float32 and averaged over the batch."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from colordist.tasks.base import Loss


def pixel_distance(kind: Literal["l1", "l2"], color: Tensor, target: Tensor) -> Tensor:
    """Mean absolute (l1) or squared (l2) difference over all pixels and channels: a scalar."""
    return F.l1_loss(color, target) if kind == "l1" else F.mse_loss(color, target)


def gradient_difference_loss(kind: Literal["l1", "l2"], color: Tensor, target: Tensor) -> Tensor:
    """Gradient difference loss (Mathieu et al. 2016, arXiv 1511.05440): a scalar.

    Distance between horizontal and vertical pixel differences. Where the target's colour is uniform, so should be the
    prediction's, whatever the colour.
    """
    right = pixel_distance(kind, color.diff(dim=-1), target.diff(dim=-1))
    below = pixel_distance(kind, color.diff(dim=-2), target.diff(dim=-2))
    return (right + below) / 2


def bce(logits: Tensor, target: float) -> Tensor:
    """Binary cross-entropy of logits of any shape against one target in [0, 1] (Goodfellow et al. 2014): a scalar."""
    # As softplus: a third of the operations of `binary_cross_entropy_with_logits`.
    if target == 1:
        return _softplus(-logits).mean()
    loss = _softplus(logits)
    return (loss if target == 0 else loss - target * logits).mean()


def _softplus(values: Tensor) -> Tensor:
    """log(1 + exp(values)), also exact in float64."""
    return F.softplus(values, threshold=40)


def discriminator_bce(real: Tensor, fake: Tensor, label_smoothing: float) -> Loss:
    """BCE loss of a discriminator, with its accuracies. real, fake: logits of any shape.

    label_smoothing: the target for real is 1 minus this.
    """
    terms = {"real": bce(real, 1 - label_smoothing), "fake": bce(fake, 0)}
    accuracies = {
        "accuracy_real": (real > 0).mean(dtype=real.dtype),
        "accuracy_fake": (fake < 0).mean(dtype=fake.dtype),
    }
    return Loss((terms["real"] + terms["fake"]) / 2, terms, diagnostics=accuracies)


def relativistic(logits: Tensor, others: Tensor) -> Tensor:
    """Relativistic pairing loss, the mean of softplus(others - logits): a scalar. Both of the same shape.

    Jolicoeur-Martineau 2018 (arXiv 1807.00734), as in R3GAN (Huang et al. 2024, arXiv 2501.05441, equation 2). For the
    discriminator ``logits`` are those of real images and ``others`` of fake ones; for the generator vice versa.
    """
    return _softplus(others - logits).mean()


def squared_gradient_norm(logits: Tensor, color: Tensor) -> Tensor:
    """Squared norm of the gradient of each image's mean logit with respect to its colours.

    For zero-centred gradient penalties (Mescheder et al. 2018, arXiv 1801.04406, equation 9). logits: [B, ...], each
    image's independent of the others; color: [B, C, H, W], in their graph. Returns [B], in color's dtype, with a graph
    for the second derivative.
    """
    # Of the sum over patches, not the mean: in half precision small gradients would underflow.
    (gradient,) = torch.autograd.grad(logits.sum(), color, create_graph=True)
    patches = logits[0].numel()
    return (gradient / patches).square().sum(dim=(1, 2, 3))
