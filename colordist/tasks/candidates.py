"""Several answers to each image, one for each draw of noise that the plan made."""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from colordist.data.loader import Batch

_REGIONS = 4  # along each side of an image


def answers(generator: Callable[..., Tensor], batch: Batch) -> Tensor:
    """What a generator makes of a batch, in one pass: [B * draws, C, H, W], one without noise.

    The answers to one image stand one after the other.
    """
    if batch.noise.numel() == 0:
        return generator(batch.grey)
    return generator(batch.grey, batch.noise.flatten(0, 1))


def first(color: Tensor, batch: Batch) -> Tensor:
    """Of ``answers`` the first to each image, as good as any other: [B, C, H, W]."""
    return color if len(color) == len(batch) else _by_image(color, batch)[:, 0]


def nearest(kind: Literal["l1", "l2"], color: Tensor, batch: Batch) -> Tensor:
    """Of ``answers`` those nearest to the true colours, region by region, put together: [B, C, H, W].

    A distance asked of these alone leaves the others free to be what else is likely: the minimum over several
    hypotheses (Guzman-Rivera et al. 2012; "best of many", Bhattacharyya et al. 2018, arXiv 1806.07772). By
    regions, because an image has several things whose colours don't depend on each other.
    """
    if len(color) == len(batch):
        return color
    choices = _by_image(color, batch)
    with torch.no_grad():
        error = choices - batch.target.unsqueeze(1)
        error = (error.abs() if kind == "l1" else error.square()).mean(dim=2)  # [B, draws, H, W]
        distance = F.adaptive_avg_pool2d(error, min(_REGIONS, *error.shape[-2:]))
        candidates = torch.arange(choices.shape[1], device=color.device).view(1, -1, 1, 1)
        taken = (candidates == distance.argmin(dim=1, keepdim=True)).to(color.dtype)
        taken = F.interpolate(taken, error.shape[-2:], mode="nearest")
    # A sum and no indexing: the gradient of that isn't deterministic on GPUs.
    return (choices * taken.unsqueeze(2)).sum(dim=1)


def _by_image(color: Tensor, batch: Batch) -> Tensor:
    """[B * draws, C, H, W] -> [B, draws, C, H, W]."""
    return color.view(len(batch), -1, *color.shape[1:])
