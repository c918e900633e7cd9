"""Conditioning of a network on time."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

_FREQUENCIES = 32
_HIGHEST = 100.0  # radians per unit of time

Film = tuple[Tensor, Tensor]
"""Scale and shift of a level's channels: [B, C, 1, 1] each."""


class TimeEmbedding(nn.Module):
    """Scale and shift the channels of each level by the time (FiLM: Perez et al. 2018, arXiv 1709.07871).

    The time is embedded in its sines and cosines, as positions are (Vaswani et al. 2017, arXiv 1706.03762). Scales and
    shifts are zero-initialised.
    """

    def __init__(self, channels: Sequence[int], size: int) -> None:
        """channels: of each level. size: of the embedding."""
        super().__init__()
        self.channels = [*channels]
        self.embed = nn.Sequential(nn.Linear(2 * _FREQUENCIES, size), nn.SiLU(), nn.Linear(size, size), nn.SiLU())
        self.films = nn.Linear(size, 2 * sum(channels))
        nn.init.zeros_(self.films.weight)
        nn.init.zeros_(self.films.bias)

    def forward(self, time: Tensor) -> list[Film]:
        """time [B] in [0, 1] -> a scale and a shift for each level, in their order."""
        exponents = torch.arange(_FREQUENCIES, device=time.device, dtype=time.dtype) / (_FREQUENCIES - 1)
        angles = time[:, None] * torch.exp(exponents * math.log(_HIGHEST))
        films: Tensor = self.films(self.embed(torch.cat([angles.sin(), angles.cos()], dim=1)))
        scales, shifts = films[:, :, None, None].chunk(2, dim=1)
        return [*zip(scales.split(self.channels, dim=1), shifts.split(self.channels, dim=1), strict=True)]


def modulated(x: Tensor, film: Film | None) -> Tensor:
    """Scale and shift channels, [B, C, H, W]; None: as they are."""
    if film is None:
        return x
    scale, shift = film
    return x * (1 + scale) + shift
