"""Conditioning of a network on noise."""

import torch
from torch import Tensor, nn

from colordist.models.time_embedding import modulated


class Modulation(nn.Module):
    """Scale and shift each channel by a latent code (FiLM: Perez et al. 2018, arXiv 1709.07871).

    The argmax of the noise selects one of equally likely, discrete codes: between two of them the output would be an
    average again. The modulation is the same at every pixel.
    """

    def __init__(self, codes: int, channels: int) -> None:
        super().__init__()
        self.palettes = nn.Linear(codes, 2 * channels)  # a key of saved weights

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """x [B, C, H, W], noise [B, codes] -> the shape of x."""
        codes = torch.arange(noise.shape[1], device=noise.device)
        one_hot = (noise.argmax(dim=1, keepdim=True) == codes).to(x.dtype)
        scale, shift = self.palettes(one_hot)[:, :, None, None].chunk(2, dim=1)
        return modulated(x, (scale, shift))
