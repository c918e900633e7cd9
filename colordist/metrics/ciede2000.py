"""The colour difference CIEDE2000.

Sharma, Wu, Dalal: "The CIEDE2000 color-difference formula: implementation notes, supplementary test data, and
mathematical observations", Color Research and Application 30(1), 2005. Numbers in brackets are its equations.
"""

import torch
from torch import Tensor, cos, hypot, sin

from colordist.metrics.metric import EvalBatch, mean_over_images, mean_over_pixels

_25_7 = 25.0**7


def _saturation(chroma: Tensor) -> Tensor:
    """sqrt(C^7 / (C^7 + 25^7)): near 0 for greys, near 1 for vivid colours."""
    seventh = chroma**7
    return torch.sqrt(seventh / (seventh + _25_7))


def _hue(a: Tensor, b: Tensor) -> Tensor:
    """Hue in degrees, [0, 360); 0 for greys [7]."""
    return torch.rad2deg(torch.atan2(b, a)) % 360


def _hue_difference_and_mean(hue1: Tensor, hue2: Tensor, either_grey: Tensor) -> tuple[Tensor, Tensor]:
    """Signed difference [10] and mean [14] of two hues in degrees, the short way round; grey has no hue."""
    difference, total = hue2 - hue1, hue1 + hue2
    far = difference.abs() > 180
    mean = torch.where(far, torch.where(total < 360, total + 360, total - 360), total) / 2
    difference = torch.where(far, difference - 360 * difference.sign(), difference)
    return torch.where(either_grey, 0, difference), torch.where(either_grey, total, mean)


def ciede2000(lab1: Tensor, lab2: Tensor) -> Tensor:
    """CIEDE2000 with kL = kC = kH = 1 between colours in CIE Lab. [..., 3, H, W] twice, to [..., H, W]."""
    lightness1, a1, b1 = lab1.unbind(-3)
    lightness2, a2, b2 = lab2.unbind(-3)

    stretch = 1.5 - 0.5 * _saturation((hypot(a1, b1) + hypot(a2, b2)) / 2)  # [4], [5]
    a1, a2 = a1 * stretch, a2 * stretch
    chroma1, chroma2 = hypot(a1, b1), hypot(a2, b2)  # [6]
    chroma = (chroma1 + chroma2) / 2  # [13]
    hue_difference, hue = _hue_difference_and_mean(_hue(a1, b1), _hue(a2, b2), chroma1 * chroma2 == 0)

    delta_chroma = chroma2 - chroma1  # [9]
    delta_hue = 2 * torch.sqrt(chroma1 * chroma2) * sin(torch.deg2rad(hue_difference / 2))  # [11]
    above_middle = ((lightness1 + lightness2) / 2 - 50) ** 2
    angle = torch.deg2rad(hue)
    hue_weight = (  # [15]
        1
        - 0.17 * cos(angle - torch.pi / 6)
        + 0.24 * cos(2 * angle)
        + 0.32 * cos(3 * angle + torch.pi / 30)
        - 0.20 * cos(4 * angle - torch.pi * 63 / 180)
    )
    turn = torch.deg2rad(60 * torch.exp(-(((hue - 275) / 25) ** 2)))  # [16]
    rotation = -2 * _saturation(chroma) * sin(turn)  # [17], [21]

    in_lightness = (lightness2 - lightness1) / (1 + 0.015 * above_middle / torch.sqrt(20 + above_middle))  # [8], [18]
    in_chroma = delta_chroma / (1 + 0.045 * chroma)  # [19]
    in_hue = delta_hue / (1 + 0.015 * chroma * hue_weight)  # [20]
    return torch.sqrt(in_lightness**2 + in_chroma**2 + in_hue**2 + rotation * in_chroma * in_hue)  # [22]


def _per_image(eval_batch: EvalBatch) -> Tensor:
    return mean_over_pixels(ciede2000(*eval_batch.lab))


CIEDE2000 = mean_over_images("ciede2000", "CIEDE2000", "lower", _per_image, role="primary")
"""Mean over images and pixels of the CIEDE2000 difference between prediction and target."""
