"""References, which need no network: baselines, oracle and ground truth."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from colordist.color import AB_SCALE, ColorSpace, luma, to_8_bits
from colordist.metrics.metric import precision, rgb_to_lab
from colordist.metrics.specs import ReferenceSpec

_LAB = ColorSpace("lab")
_PER_UNIT = 100  # bins of the median's histograms per unit of a or b
_PIXELS = 2**20  # converted at once: intermediate results take about 300 bytes per pixel
_CENTER = 110 * _PER_UNIT  # a and b of sRGB colours lie within +-110


def grey(rgb: Tensor) -> Tensor:
    """No colour at all: R = G = B = luma. uint8 [B, 3, H, W] to the same."""
    return luma(rgb).expand_as(rgb).contiguous()


def constant(rgb: Tensor, ab: tuple[float, float]) -> Tensor:
    """The L of the grey image with the same a and b everywhere. uint8 [B, 3, H, W] to the same."""
    seen, color = _LAB.split(rgb, precision(rgb.device))
    color[:, 0], color[:, 1] = ab[0] / AB_SCALE, ab[1] / AB_SCALE
    return to_8_bits(_LAB.join(seen, color))


def oracle(rgb: Tensor) -> Tensor:
    """The L of the grey image with the target's a and b: the best prediction in `lab` mode. uint8 [B, 3, H, W]."""
    return to_8_bits(_LAB.join(*_LAB.split(rgb, precision(rgb.device))))


@dataclass(frozen=True)
class Reference(ReferenceSpec):
    """A reference: predictions without a network."""

    answer: Callable[[Tensor, tuple[float, float]], Tensor]
    """Maps targets (uint8 [B, 3, H, W]) and the training split's median a,b to predictions (same shape, uint8)."""


REFERENCES: tuple[Reference, ...] = (
    Reference("grey", "grey (baseline)", "baseline", lambda rgb, ab: grey(rgb)),
    Reference("constant", "constant a,b (baseline)", "baseline", constant),
    Reference("oracle", "target's a,b (oracle)", "oracle", lambda rgb, ab: oracle(rgb)),
    Reference("target", "target", "target", lambda rgb, ab: rgb),
)
"""In the order of tables."""


def median_ab(images: Iterable[Tensor]) -> tuple[float, float]:
    """Median of a and median of b over all pixels, each rounded to 0.01 (of an even number, the lower middle one).

    images: batches of uint8 [B, 3, H, W].
    """
    return median_of(sum((ab_counts(batch) for batch in images), NO_COUNTS))


NO_COUNTS = torch.zeros(2, 2 * _CENTER + 1, dtype=torch.int64)
"""``ab_counts`` of no image."""


def ab_counts(images: Tensor) -> Tensor:
    """Histograms of a and of b in bins of 0.01, for ``median_of``: to be added up over images in any order.

    images: uint8 [B, 3, H, W]. Returns int64 [2, bins] on the CPU.
    """
    counts = NO_COUNTS.clone()
    for part in images.split(max(1, _PIXELS // images[0, 0].numel())):
        bins = (rgb_to_lab(part)[:, 1:] * _PER_UNIT).round().long() + _CENTER
        for channel in range(2):
            counts[channel] += torch.bincount(bins[:, channel].flatten(), minlength=counts.shape[1]).cpu()
    return counts


def median_of(counts: Tensor) -> tuple[float, float]:
    """Median of a and of b from their histograms: int64 [2, bins]."""
    pixels = int(counts[0].sum())
    if pixels == 0:
        raise ValueError("no images to take the median colour of")
    middle = (counts.cumsum(dim=1) < (pixels + 1) // 2).sum(dim=1)  # the first bin that reaches half
    a, b = (middle - _CENTER).tolist()
    return a / _PER_UNIT, b / _PER_UNIT
