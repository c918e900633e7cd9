"""Upsampling of a network's chroma to a photo's resolution.

``bilinear`` doesn't look at the photo, so colours bleed over its edges. ``guided`` sharpens them where chroma follows
luma. An upsampler is made for one photo and returns any rows of the result: the same values, to the bit, whichever
other rows are asked for. So a photo can be processed in strips.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter
from torch import Tensor

from colordist.data import decode
from colordist.errors import UserError, printable

Upsampler = Callable[[range], Tensor]
"""Rows of a photo -> their a and b divided by AB_SCALE, [2, rows, width]."""

NOISE = 1e-4  # variance of luma, 2.5 of 255 squared, and of a, b divided by AB_SCALE
BLUR = 1  # pixels of the photo


def upsampler(method: str, color: Tensor, grey: Image.Image) -> Upsampler:
    """Upsample a network's colours to a photo's size.

    method: one of METHODS. color: a and b divided by AB_SCALE, [2, h, w]; reduced where larger than the photo. grey:
    the photo's, mode L.
    """
    smaller = (min(color.shape[1], grey.height), min(color.shape[2], grey.width))
    color = F.interpolate(color[None].cpu(), smaller, mode="bilinear", antialias=True)[0].to(color.device)
    return METHODS[method](color, grey)


def check_method(name: str) -> None:
    """Raise UserError unless there is a method of this name."""
    if not isinstance(name, str) or name not in METHODS:
        shown = printable(repr(name)[:50])
        raise UserError(f"upsample is {shown}, but must be one of {', '.join(METHODS)}: try guided")


def _bilinear(color: Tensor, grey: Image.Image) -> Upsampler:
    """Bilinear interpolation."""
    columns = _linear(color, -1, range(grey.width), grey.width)
    return lambda rows: _linear(columns, -2, rows, grey.height)


def _guided(color: Tensor, grey: Image.Image) -> Upsampler:
    """Bicubic interpolation, plus the luma that the low resolution lacks times the local slope of chroma on luma.

    The slope is a guided filter's at low resolution (He, Sun 2015, arXiv 1505.00996), but the network's colours are
    kept, not smoothed: their missing detail is added, as in pan-sharpening (Aiazzi et al. 2002, "Context-driven fusion
    of high spatial and spectral resolution images"). Results stay within the range of the nearest 3x3 colours, so edges
    have no halos. Where luma is flat, this is bicubic interpolation.
    """
    # Luma's finest detail isn't chroma's: JPEG files store chroma at half the resolution, and grain has no colour.
    guide = grey.filter(ImageFilter.BoxBlur(BLUR))
    luma = _luma(decode.scale(guide, (color.shape[2], color.shape[1])), color)
    lowest, highest = -F.max_pool2d(-color, 3, 1, 1), F.max_pool2d(color, 3, 1, 1)
    across = range(grey.width)
    interpolated = _cubic(torch.cat([color, luma]), -1, across, grey.width)
    local = _linear(torch.cat([_slope(color, luma), lowest, highest]), -1, across, grey.width)

    def upsample(rows: range) -> Tensor:
        chroma, coarse = _cubic(interpolated, -2, rows, grey.height).split((2, 1))
        slope, low, high = _linear(local, -2, rows, grey.height).split(2)
        fine = _luma(guide.crop((0, rows.start, grey.width, rows.stop)), color)
        return torch.clamp(chroma + slope * (fine - coarse), low, high)

    return upsample


METHODS = {"guided": _guided, "bilinear": _bilinear}


def _slope(color: Tensor, luma: Tensor) -> Tensor:
    """Slope of the local regression of chroma on luma, times its R^2: where luma explains nothing, it shall do nothing.

    color: [2, h, w], luma: [1, h, w]. Returns [2, h, w].
    """
    color_mean, luma_mean = _smooth(color), _smooth(luma)
    covariance = _smooth(color * luma) - color_mean * luma_mean
    luma_variance = _smooth(luma * luma) - luma_mean * luma_mean + NOISE
    color_variance = (_smooth(color * color) - color_mean * color_mean).sum(0, keepdim=True) + NOISE
    explained = (covariance * covariance).sum(0, keepdim=True) / (luma_variance * color_variance)
    return covariance / luma_variance * explained


def _smooth(image: Tensor) -> Tensor:
    """Mean over 3x3 pixels with binomial weights, 1 2 1. [C, h, w], with its border repeated."""
    padded = F.pad(image[None], (1, 1, 1, 1), mode="replicate")[0]
    rows = (padded[:, :-2] + padded[:, 2:] + 2 * padded[:, 1:-1]) / 4
    return (rows[..., :-2] + rows[..., 2:] + 2 * rows[..., 1:-1]) / 4


def _linear(image: Tensor, dim: int, pixels: range, length: int) -> Tensor:
    """Interpolate dimension -1 or -2 linearly to a length; returns the given pixels of it."""
    (before, after), fraction = _neighbours(image, dim, pixels, length, range(2))
    return before + fraction * (after - before)


def _cubic(image: Tensor, dim: int, pixels: range, length: int) -> Tensor:
    """Like `_linear`, by cubic convolution (Keys 1981, eq. 15)."""
    (first, second, third, fourth), x = _neighbours(image, dim, pixels, length, range(-1, 3))
    y = 1 - x
    outer = x * y * (first * y + fourth * x) / -2
    return outer + second * (1 + x * x * (1.5 * x - 2.5)) + third * (1 + y * y * (1.5 * y - 2.5))


def _neighbours(image: Tensor, dim: int, pixels: range, length: int, taps: range) -> tuple[list[Tensor], Tensor]:
    """Pixels around each position, with the border repeated, and the position between numbers 0 and 1, in [0, 1).

    All arithmetic is elementwise. So unlike those of F.interpolate, results are the same in strips as for the whole.
    """
    last = image.shape[dim] - 1
    centres = torch.arange(pixels.start, pixels.stop, dtype=image.dtype, device=image.device) + 0.5
    position = (centres * ((last + 1) / length) - 0.5).clamp(0, last)
    below = position.long()
    found = [image.index_select(dim, (below + tap).clamp(0, last)) for tap in taps]
    fraction = position - below
    return found, fraction.unsqueeze(-1) if dim == -2 else fraction


def _luma(grey: Image.Image, like: Tensor) -> Tensor:
    """Mode L -> [1, H, W] in [0, 1], with the device and dtype of another tensor."""
    return torch.from_numpy(np.array(grey))[None].to(like) / 255
