"""Colourfulness.

Hasler, Suesstrunk: "Measuring colourfulness in natural images", Human Vision and Electronic Imaging 2003. Its rg and
yb are signed; some code takes their magnitude first, which gives other numbers: unsigned_colorfulness.py.
"""

import torch
from torch import Tensor

from colordist.metrics.metric import EvalBatch, mean_over_images


def opponents(rgb: Tensor) -> tuple[Tensor, Tensor]:
    """The opponent channels rg and twice yb, signed integers: uint8 [B, 3, H, W] to int32 [B, H, W] twice."""
    red, green, blue = rgb.int().unbind(1)
    return red - green, red + green - 2 * blue


def of_opponents(rg: Tensor, yb2: Tensor) -> Tensor:
    """sqrt(var(rg) + var(yb)) + 0.3 sqrt(mean(rg)^2 + mean(yb)^2), of rg and 2 yb: twice [B, H, W] to float64 [B]."""
    rg_mean, rg_variance = _mean_and_variance(rg)
    yb_mean, yb_variance = _mean_and_variance(yb2)
    return torch.sqrt(rg_variance + yb_variance / 4) + 0.3 * torch.sqrt(rg_mean**2 + yb_mean**2 / 4)


def _mean_and_variance(image: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and (population) variance of each integer image, from exact sums. [B, H, W] to [B] twice."""
    pixels = image.flatten(1)
    mean = pixels.sum(dim=1).cpu().double() / pixels.shape[1]
    mean_square = (pixels * pixels).sum(dim=1).cpu().double() / pixels.shape[1]
    return mean, (mean_square - mean**2).clamp(min=0)


def colorfulness(rgb: Tensor) -> Tensor:
    """Colourfulness of each image, on the scale of 0 to 255: 0 is grey, natural images have about 30.

    rgb: uint8 [B, 3, H, W]. Returns float64 [B] on the CPU.
    """
    return of_opponents(*opponents(rgb))


def _gap(eval_batch: EvalBatch) -> Tensor:
    return (colorfulness(eval_batch.prediction) - colorfulness(eval_batch.target)).abs()


COLORFULNESS = mean_over_images(
    "colorfulness", "Colourfulness", "target", lambda eval_batch: colorfulness(eval_batch.prediction), role="diagnostic"
)
"""Mean over images of the predictions' colourfulness."""

COLORFULNESS_GAP = mean_over_images("colorfulness_gap", "Colourfulness gap", "lower", _gap)
"""Mean over images of |colourfulness of the prediction - colourfulness of the target|."""
