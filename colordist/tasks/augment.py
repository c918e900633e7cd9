"""What images go through before a discriminator sees them, so that it can't learn a small training set by heart.

Differentiable augmentation (Zhao et al. 2020, arXiv 2006.10738) without its change of colours, which would teach the
discriminator not to mind them. Grey and colour change alike; whatever leaves an image makes room for zeros: a grey.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

AUGMENTATIONS = ("translation", "cutout")

_TRANSLATION, _CUTOUT = slice(0, 2), slice(2, 4)
"""The columns of ``Batch.chance`` that decide each: one for the height, one for the width."""


def augment(names: Sequence[str], grey: Tensor, color: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """Change pairs of images, those of a pair alike.

    names: out of ``translation`` and ``cutout``; grey: [B, 1, H, W]; color: [B, C, H, W]; chance: [B, CHANCES], uniform
    in [0, 1). Returns grey and colour of the same shapes.
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
    """Move each image by up to an eighth of its height and width: [B, C, H, W] -> the same shape. chance: [B, 2]."""
    for dim, each in ((2, uniforms[:, 0]), (3, uniforms[:, 1])):
        size = images.shape[dim]
        furthest = size // 8
        moved = _choice(each, 2 * furthest + 1) - furthest
        origin = torch.arange(size, device=images.device) - moved[:, None]  # [B, size]: where a row or column was
        # Round the edge: nothing is taken twice, so gradients add up in one order only.
        taken = images.gather(dim, _along(origin % size, dim).expand_as(images))
        images = taken * _along((origin >= 0) & (origin < size), dim)
    return images


def cutout(images: Tensor, uniforms: Tensor) -> Tensor:
    """Make a rectangle of half the height and width zero; its middle is anywhere: [B, C, H, W] -> the same shape.

    chance: [B, 2].
    """
    inside = []
    for dim, each in ((2, uniforms[:, 0]), (3, uniforms[:, 1])):
        size = images.shape[dim]
        middle = _choice(each, size + 1)
        begin = middle[:, None] - size // 4
        place = torch.arange(size, device=images.device)
        inside.append(_along((place >= begin) & (place < begin + size // 2), dim))
    return images * ~(inside[0] & inside[1])


def _choice(uniforms: Tensor, count: int) -> Tensor:
    """A whole number below ``count`` for each number in [0, 1), all equally likely."""
    return (uniforms * count).long()


def _along(values: Tensor, dim: int) -> Tensor:
    """[B, n] -> [B, 1, n, 1] or [B, 1, 1, n]: one for each row (dim 2) or column (dim 3) of an image."""
    return values[:, None, :, None] if dim == 2 else values[:, None, None, :]
