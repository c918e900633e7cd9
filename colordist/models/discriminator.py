"""Discriminator: is this the true colour of this grey image?"""

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from colordist.config import Norm
from colordist.models.blocks import add_spectral_norm, convolution, level_widths, normalisation


class Discriminator(nn.Module):
    """Conditional discriminator, for patches (Isola et al. 2017, arXiv 1611.07004) or for whole images.

    Sees grey and colour together. No normalisation after the first layer, as in DCGAN (arXiv 1511.06434).
    """

    def __init__(
        self,
        *,
        color_channels: int,
        width: int,
        depth: int,
        output: Literal["patch", "image"],
        norm: Norm,
        spectral_norm: bool,
    ) -> None:
        super().__init__()
        widths = level_widths(width, depth)
        # The first layer works at full resolution: that neighbouring pixels have the same colour is easily seen there.
        layers: list[nn.Module] = [convolution(1 + color_channels, width, "none"), nn.LeakyReLU(0.2, inplace=True)]
        for above, below in pairwise(widths):
            layers += [
                convolution(above, below, norm, kernel=4, stride=2),
                normalisation(norm, below),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 3, padding=1))
        self.output = output
        if spectral_norm:
            add_spectral_norm(self)

    def forward(self, grey: Tensor, color: Tensor) -> Tensor:
        """grey [B, 1, H, W] and colour [B, C, H, W] -> logits: [B, 1, H', W'], one a patch, or [B, 1]."""
        logits: Tensor = self.layers(torch.cat([grey, color], dim=1))
        return logits if self.output == "patch" else logits.mean(dim=(2, 3))
