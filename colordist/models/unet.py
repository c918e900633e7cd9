"""Generator ``unet``: encoder and decoder with skip connections."""

from dataclasses import dataclass
from itertools import pairwise, repeat
from typing import ClassVar

import torch
from torch import Tensor, nn

from colordist.errors import UserError
from colordist.models.activation_checkpointing import CheckpointedModule
from colordist.models.blocks import (
    ConvBlock,
    EncoderDecoderSettings,
    ResidualBlock,
    SelfAttention,
    Up,
    last_convolution,
    level_widths,
)
from colordist.models.modulation import Modulation
from colordist.models.time_embedding import Film, TimeEmbedding, modulated
from colordist.ranges import at_least, in_range


@dataclass(frozen=True, kw_only=True)
class UNetSettings(EncoderDecoderSettings):
    """Settings of the generator ``unet``."""

    has_time_input: ClassVar[bool] = True

    blocks: int = 0
    """Residual blocks per level of encoder and decoder; 0: one plain convolution instead."""
    attention_level: int | None = None
    """Level with self-attention in encoder and decoder; 0: full resolution. Default: none."""
    noise: int = 0
    """Number of discrete latent codes, selected by the argmax of a noise vector of this length; 0: deterministic."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("model.blocks", self.blocks, 0, 1024)
        at_least("model.noise", self.noise, 0, 2**16)
        if self.noise == 1:
            raise UserError(
                "model.noise is 1, but must be 0 or at least 2 latent codes: try model.noise 6, or model.noise 0"
            )
        if self.attention_level is not None:
            in_range("model.attention_level", self.attention_level, 0, self.depth)

    @property
    def noise_size(self) -> int:
        """Length of the noise vector per sample."""
        return self.noise


class UNet(CheckpointedModule):
    """U-Net (Ronneberger et al. 2015, arXiv 1505.04597) from grey to colour.

    Height and width: multiples of 2**depth. At each level: two convolutions, or one and residual blocks. Skip
    connections are concatenated, so edges stay where the grey image has them.
    """

    Settings = UNetSettings
    ENCODER = ("first", "down")

    def __init__(
        self, settings: UNetSettings, *, inputs: int = 1, outputs: int = 2, time_conditioned: bool = False
    ) -> None:
        """inputs, outputs: channels. time_conditioned: whether the network has a time input."""
        super().__init__()
        width, depth, norm = settings.width, settings.depth, settings.norm
        blocks, attention_level, noise = settings.blocks, settings.attention_level, settings.noise
        widths = level_widths(width, depth, settings.bottleneck)

        def refined(level: int) -> list[nn.Module]:
            """Residual blocks and attention of a level."""
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
        self.time = TimeEmbedding([*widths, *widths[-2::-1]], 8 * width) if time_conditioned else None

    def forward(self, image: Tensor, noise: Tensor | None = None, time: Tensor | None = None) -> Tensor:
        """image [B, inputs, H, W] of about unit size -> [B, outputs, H, W], unbounded.

        noise: [B * N, model.noise] for N samples per image, those of an image consecutive -> [B * N, outputs, H, W]. It
        modulates only the last features, so further samples are cheap. time: [B] in [0, 1]; it modulates all levels.
        """
        films = repeat(None) if self.time is None else iter(self.time(time))
        x, levels = image, []
        for level in (self.first, *self.down):
            x = self.run(_encode_level, level, x, next(films))
            levels.append(x)
        levels.pop()
        for index in range(len(self.up)):
            x = self.run(self._decode_level, index, x, levels.pop(), next(films))
        return self.run(self._output, x, noise)

    def _decode_level(self, index: int, x: Tensor, skip: Tensor, film: Film | None) -> Tensor:
        """Upsample by one level and merge with the skip connection."""
        up, merge, refine = self.up[index], self.merge[index], self.refine[index]
        merged: Tensor = refine(modulated(merge(torch.cat([up(x), skip], dim=1)), film))
        return merged

    def _output(self, x: Tensor, noise: Tensor | None) -> Tensor:
        if self.modulate is not None:
            assert noise is not None, "this network needs noise"
            x = self.modulate(x.repeat_interleave(len(noise) // len(x), dim=0), noise)
        color: Tensor = self.last(x)
        return color


def _encode_level(level: nn.Module, x: Tensor, film: Film | None) -> Tensor:
    """Run a level of the encoder."""
    return modulated(level(x), film)
