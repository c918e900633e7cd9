"""Structural similarity."""

import math

import torch
from torch import Tensor

from colordist.metrics.metric import EvalBatch, mean_over_images, mean_over_pixels, precision

WINDOW = 11  # pixels
SIGMA = 1.5
_C1, _C2 = 0.01**2, 0.03**2


def _blur(images: Tensor) -> Tensor:
    """Gaussian mean around each pixel whose whole window is inside the image. [N, C, H, W] to [N, C, H - 10, W - 10].

    Written out because a convolution in float64 is ten times slower on a CPU.
    """
    weights = [math.exp(-0.5 * ((i - WINDOW // 2) / SIGMA) ** 2) for i in range(WINDOW)]
    for side in (2, 3):
        size = images.shape[side] - WINDOW + 1
        total = weights[0] * images.narrow(side, 0, size)
        for start, weight in enumerate(weights[1:], start=1):
            total.add_(images.narrow(side, start, size), alpha=weight)
        images = total / sum(weights)
    return images


def _similarity(x: Tensor, y: Tensor) -> Tensor:
    """Around each pixel whose whole window is inside the image. [N, C, H, W] in [0, 1] to [N, C, H - 10, W - 10]."""
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = _blur(torch.cat([x, y, x * x, y * y, x * y])).chunk(5)
    var_x, var_y, covariance = mean_xx - mean_x**2, mean_yy - mean_y**2, mean_xy - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    structure = (2 * covariance + _C2) / (var_x + var_y + _C2)
    return luminance * structure


def _per_image(eval_batch: EvalBatch) -> Tensor:
    if min(eval_batch.target.shape[2:]) < WINDOW:
        return torch.empty(0)
    x, y = (images.to(precision(images.device)) / 255 for images in (eval_batch.prediction, eval_batch.target))
    # One channel at a time: of a photograph, all three would take twice the memory of any other metric.
    channels = [_similarity(*pair) for pair in zip(x.split(1, dim=1), y.split(1, dim=1), strict=True)]
    return mean_over_pixels(torch.cat(channels, dim=1))


SSIM = mean_over_images("ssim", "SSIM", "higher", _per_image, digits=3)
"""Wang et al. 2004, equation 13: per R, G, B channel, 11x11 Gaussian window of sigma 1.5, range 1, mean over images.

The 5 pixels at each border, where the window would leave the image, are not scored (as in scikit-image). Images with
a side under 11 pixels are not counted.
"""
