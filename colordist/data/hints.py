"""Colour hints: points of an image whose colours a network is given, as further channels of its input.

Zhang et al. 2017 (arXiv 1705.02999), section 3.2: a hint is a small square, with the mean colour of its pixels. Unlike
there, half of the training images have no hints, so that a network stays nearly as good without them, and the squares
are uniformly distributed.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

POINTS = 64
"""Maximum number of hints of a training image."""
SIDE = 5
"""Side in pixels of a hint's square, when it isn't random."""
_MOST_SIDE = 9
_WITHOUT = 0.5  # share of training images without hints
_CONTINUE = 7 / 8  # probability of each further hint: eight on average


def random_squares(uniforms: NDArray[np.float64], height: int, width: int) -> NDArray[np.int64]:
    """Squares of random number, place and size, for training images: [B, POINTS, 4], see ``squares``.

    uniforms: [B, 1 + POINTS, 3] in [0, 1).
    """
    first, points = uniforms[:, 0], uniforms[:, 1:]
    count = 1 + np.floor(np.log1p(-first[:, 1]) / np.log(_CONTINUE))  # geometric
    count = np.where(first[:, 0] < _WITHOUT, 0, count)
    sides = 1 + (points[..., 2] * _MOST_SIDE).astype(np.int64)
    sides = np.where(np.arange(points.shape[1]) < count[:, None], sides, 0)
    return squares(points[..., :2], sides, height, width)


def squares(points: NDArray[np.float64], sides: NDArray[np.int64], height: int, width: int) -> NDArray[np.int64]:
    """Top, bottom, left and right of squares within an image, the ends exclusive: [B, P, 4].

    points: vertical and horizontal position of their centres in [0, 1), [B, P, 2]; sides: in pixels, [B, P]; 0: none.
    """
    size = np.array([height, width])
    start = (points * size).astype(np.int64) - sides[..., None] // 2
    ends = np.clip(np.stack([start, start + sides[..., None]], axis=-1), 0, size[:, None])
    found: NDArray[np.int64] = ends.reshape(*points.shape[:2], 4)
    return found


def hints_of(squares: Tensor, target: Tensor) -> Tensor:
    """Hints with an image's own colours, the means of the squares: [B, C + 1, H, W]; see ``painted``.

    squares: [B, P, 4]; target: [B, C, H, W].
    """
    return painted(squares, square_means(squares, target), target)


def square_means(squares: Tensor, image: Tensor) -> Tensor:
    """Mean of each square, 0 for an empty one: [B, P, C]. squares: [B, P, 4]; image: [B, C, H, W]."""
    rows, columns = _inside(squares, image)
    batch, channels, height, width = image.shape
    lines = image.permute(0, 2, 1, 3).reshape(batch, height, channels * width)
    sums = ((rows @ lines).view(batch, -1, channels, width) * columns.unsqueeze(2)).sum(dim=3)
    area = rows.sum(dim=2) * columns.sum(dim=2)
    return sums / area.clamp(min=1).unsqueeze(2)


def painted(squares: Tensor, color: Tensor, like: Tensor) -> Tensor:
    """Paint squares: colours, their mean where squares overlap and 0 elsewhere, then a mask: [B, C + 1, H, W].

    squares: [B, P, 4]; color: one for each, [B, P, C]; like: [B, any, H, W], of the wanted size.
    """
    rows, columns = _inside(squares, like)
    one = torch.cat([color, torch.ones_like(color[..., :1])], dim=2)
    lines = (one.unsqueeze(3) * columns.unsqueeze(2)).flatten(2)  # [B, P, (C + 1) * W]
    # A product of matrices: unlike indexing it is deterministic on GPUs.
    sums = (rows.transpose(1, 2) @ lines).view(len(like), like.shape[2], -1, like.shape[3]).transpose(1, 2)
    color, count = sums[:, :-1], sums[:, -1:]
    return torch.cat([color / count.clamp(min=1), (count > 0).to(color.dtype)], dim=1)


def _inside(squares: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Which rows and columns of an image are within each square, as 0 or 1: [B, P, H] and [B, P, W]."""
    top, bottom, left, right = squares.unsqueeze(3).unbind(2)
    height, width = (torch.arange(size, device=like.device) for size in like.shape[2:])
    return ((height >= top) & (height < bottom)).to(like.dtype), ((width >= left) & (width < right)).to(like.dtype)
