"""U-Net: an encoder and a decoder that see each other at every resolution."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from colordist.config import Norm
from colordist.models.activation_checkpointing import CheckpointedModule
from colordist.models.blocks import ConvBlock, ResidualBlock, SelfAttention, Up, last_convolution, level_widths
from colordist.models.modulation import Modulation


class UNet(CheckpointedModule):
    """U-Net (Ronneberger et al. 2015, arXiv 1505.04597) from grey to colour.

    Any height and width that 2**depth divides. At each level: two convolutions, or one and residual blocks; on the way
    up the level's encoder output is concatenated, so that edges stay where the grey image has them.
    """

    ENCODER = ("first", "down")

    def __init__(
        self,
        *,
        inputs: int,
        outputs: int,
        width: int,
        depth: int,
        bottleneck: int | None,
        norm: Norm,
        blocks: int,
        attention_level: int | None,
        noise: int = 0,
    ) -> None:
        super().__init__()
        widths = level_widths(width, depth, bottleneck)

        def refined(level: int) -> list[nn.Module]:
            """What is done at a level once its channels are there."""
            layers: list[nn.Module] = [ResidualBlock(widths[level], norm) for _ in range(blocks)]
            return [*layers, SelfAttention(widths[level])] if level == attention_level else layers

        def encoded(level: int) -> list[nn.Module]:
            plain = [] if blocks else [ConvBlock(widths[level], widths[level], norm)]
            return [*plain, *refined(level)]

        self.first = nn.Sequential(ConvBlock(inputs, width, norm), *encoded(0))
        self.down = nn.ModuleList(
            nn.Sequential(ConvBlock(above, below, norm, stride=2), *encoded(level))
            for level, (above, below) in enumerate(pairwise(widths), start=1)
        )
        self.up = nn.ModuleList(Up(below, above) for below, above in pairwise(reversed(widths)))
        self.merge = nn.ModuleList(ConvBlock(2 * above, above, norm) for above in widths[-2::-1])
        self.refine = nn.ModuleList(nn.Sequential(*refined(level)) for level in reversed(range(depth)))
        self.last = last_convolution(width, outputs)
        self.modulate = Modulation(noise, width) if noise else None

    def forward(self, image: Tensor, noise: Tensor | None = None) -> Tensor:
        """image [B, inputs, H, W], grey as a rule, of about unit size -> [B, outputs, H, W], unbounded.

        noise: [B * draws, numbers], if it was built for noise. Then it gives so many answers to each image, one after
        the other: [B * draws, outputs, H, W]. Noise acts on the last features alone, so a further answer costs little.
        """
        levels = [self.run(self.first, image)]
        for down in self.down:
            levels.append(self.run(down, levels[-1]))
        x = levels.pop()
        for place in range(len(self.up)):
            x = self.run(self._ascend, place, x, levels.pop())
        return self.run(self._answer, x, noise)

    def _ascend(self, place: int, x: Tensor, across: Tensor) -> Tensor:
        """To the next level up, whose encoder output comes across."""
        up, merge, refine = self.up[place], self.merge[place], self.refine[place]
        higher: Tensor = refine(merge(torch.cat([up(x), across], dim=1)))
        return higher

    def _answer(self, x: Tensor, noise: Tensor | None) -> Tensor:
        if self.modulate is not None:
            assert noise is not None, "this network was built for noise"
            x = self.modulate(x.repeat_interleave(len(noise) // len(x), dim=0), noise)
        color: Tensor = self.last(x)
        return color
