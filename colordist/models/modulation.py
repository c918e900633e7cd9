"""How noise reaches a network."""

import torch
from torch import Tensor, nn


class Modulation(nn.Module):
    """Scales and shifts each channel by what noise says (FiLM: Perez et al. 2018, arXiv 1709.07871).

    All that counts is which number of the noise is the largest: there are so many palettes, equally likely, and nothing
    in between, where an answer would be an average again. It is the same at every pixel.
    """

    def __init__(self, palettes: int, channels: int) -> None:
        super().__init__()
        self.palettes = nn.Linear(palettes, 2 * channels)

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """x [B, C, H, W], noise [B, palettes] -> the shape of x."""
        palettes = torch.arange(noise.shape[1], device=noise.device)
        chosen = (noise.argmax(dim=1, keepdim=True) == palettes).to(x.dtype)
        scale, shift = self.palettes(chosen)[:, :, None, None].chunk(2, dim=1)
        modulated: Tensor = x * (1 + scale) + shift
        return modulated
