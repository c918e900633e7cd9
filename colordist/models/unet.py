"""U-Net: an encoder and a decoder that see each other at every resolution."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from colordist.config import Norm
from colordist.models.blocks import ConvBlock, Up, last_convolution, level_widths


class UNet(nn.Module):
    """U-Net (Ronneberger et al. 2015, arXiv 1505.04597) from grey to colour.

    Any height and width that 2**depth divides. At each level: two convolutions; on the way up the level's encoder
    output is concatenated, so that edges stay where the grey image has them.
    """

    def __init__(self, *, outputs: int, width: int, depth: int, bottleneck: int | None, norm: Norm) -> None:
        super().__init__()
        widths = level_widths(width, depth, bottleneck)
        self.first = nn.Sequential(ConvBlock(1, width, norm), ConvBlock(width, width, norm))
        self.down = nn.ModuleList(
            nn.Sequential(ConvBlock(above, below, norm, stride=2), ConvBlock(below, below, norm))
            for above, below in pairwise(widths)
        )
        self.up = nn.ModuleList(Up(below, above) for below, above in pairwise(reversed(widths)))
        self.merge = nn.ModuleList(ConvBlock(2 * above, above, norm) for above in widths[-2::-1])
        self.last = last_convolution(width, outputs)

    def forward(self, grey: Tensor) -> Tensor:
        """grey [B, 1, H, W] in [-1, 1] -> colour [B, outputs, H, W], unbounded."""
        levels = [self.first(grey)]
        for down in self.down:
            levels.append(down(levels[-1]))
        x = levels.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat([up(x), levels.pop()], dim=1))
        color: Tensor = self.last(x)
        return color
