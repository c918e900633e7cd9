"""Differentiable augmentation of the discriminator's input, against overfitting (Zhao et al. 2020, arXiv 2006.10738).

Without the paper's colour augmentation, which would make the discriminator ignore colours. Grey and colours are
augmented alike; the padding is zero: a grey.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

AUGMENTATIONS = ("translation", "cutout")

_TRANSLATION, _CUTOUT = slice(0, 2), slice(2, 4)
"""Columns of ``Batch.uniforms`` for each augmentation: height, width."""


def augment(names: Sequence[str], grey: Tensor, color: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """Augment grey images and their colours alike.

    names: of AUGMENTATIONS; grey: [B, 1, H, W]; color: [B, C, H, W]; uniforms: [B, UNIFORMS] in [0, 1). Returns grey
    and colours of the same shapes.
    """
    if not names:
        return grey, color
    images = torch.cat([grey, color], dim=1)
    if "translation" in names:
        images = translation(images, uniforms[:, _TRANSLATION])
    if "cutout" in names:
        images = cutout(images, uniforms[:, _CUTOUT])
    return images[:, :1], images[:, 1:]


def translation(images: Tensor, uniforms: Tensor) -> Tensor:
    """Shift each image by up to an eighth of its height and width: [B, C, H, W] -> the same. uniforms: [B, 2]."""
    for dim, each in ((2, uniforms[:, 0]), (3, uniforms[:, 1])):
        size = images.shape[dim]
        furthest = size // 8
        shift = _integers(each, 2 * furthest + 1) - furthest
        source = torch.arange(size, device=images.device) - shift[:, None]  # [B, size]: row or column before the shift
        # Circular, then masked: no pixel is gathered twice, so the gradient is deterministic.
        rolled = images.gather(dim, _along(source % size, dim).expand_as(images))
        images = rolled * _along((source >= 0) & (source < size), dim)
    return images


def cutout(images: Tensor, uniforms: Tensor) -> Tensor:
    """Zero a rectangle of half the height and width, centred anywhere: [B, C, H, W] -> the same shape.

    uniforms: [B, 2].
    """
    inside = []
    for dim, each in ((2, uniforms[:, 0]), (3, uniforms[:, 1])):
        size = images.shape[dim]
        centre = _integers(each, size + 1)
        begin = centre[:, None] - size // 4
        position = torch.arange(size, device=images.device)
        inside.append(_along((position >= begin) & (position < begin + size // 2), dim))
    return images * ~(inside[0] & inside[1])


def _integers(uniforms: Tensor, count: int) -> Tensor:
    """Uniform integers below ``count`` from uniform numbers in [0, 1)."""
    return (uniforms * count).long()


def _along(values: Tensor, dim: int) -> Tensor:
    """[B, n] -> [B, 1, n, 1] or [B, 1, 1, n]: one value per row (dim 2) or column (dim 3)."""
    return values[:, None, :, None] if dim == 2 else values[:, None, None, :]
