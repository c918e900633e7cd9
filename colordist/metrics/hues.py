"""Histograms of a and of b."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from colordist.metrics.metric import rgb_to_lab

WIDTH = 5  # of a bin
_EDGE = 110  # a and b of sRGB colours lie within +-110
CENTERS: NDArray[np.float64] = np.arange(-_EDGE, _EDGE + 1, WIDTH, dtype=np.float64)
"""Bins are centred on multiples of WIDTH, so that grey is inside one."""


@dataclass(frozen=True)
class Histograms:
    """Shares of pixels in each bin, in percent: they add up to 100."""

    a: NDArray[np.float64]
    b: NDArray[np.float64]


def histograms(tiles: NDArray[np.uint8]) -> Histograms:
    """Count a and b of images: uint8 [N, size, size, 3]."""
    lab = rgb_to_lab(torch.from_numpy(tiles.copy()).permute(0, 3, 1, 2))
    bins = (lab[:, 1:] / WIDTH).round().clamp(-_EDGE // WIDTH, _EDGE // WIDTH).long() + _EDGE // WIDTH
    shares = [
        100 * torch.bincount(bins[:, channel].flatten(), minlength=len(CENTERS)).double().numpy() / bins[:, 0].numel()
        for channel in range(2)
    ]
    return Histograms(*shares)
