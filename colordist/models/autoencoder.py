"""Generator ``autoencoder``: a convolutional autoencoder without skip connections."""

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from colordist.models.activation_checkpointing import CheckpointedModule
from colordist.models.blocks import ConvBlock, EncoderDecoderSettings, Up, last_convolution, level_widths


@dataclass(frozen=True, kw_only=True)
class AutoencoderSettings(EncoderDecoderSettings):
    """Settings of the generator ``autoencoder``."""


class Autoencoder(CheckpointedModule):
    """Encoder and decoder without skip connections, from grey to colour.

    Height and width: multiples of 2**depth. The bottleneck loses detail: in ``lab`` mode only that of the colours, as
    the lightness is the input's.
    """

    Settings = AutoencoderSettings
    ENCODER = ("encoder",)

    def __init__(self, settings: AutoencoderSettings, *, inputs: int = 1, outputs: int = 2) -> None:
        """inputs, outputs: channels."""
        super().__init__()
        width, norm = settings.width, settings.norm
        widths = level_widths(width, settings.depth, settings.bottleneck)
        self.encoder = nn.Sequential(
            ConvBlock(inputs, width, norm),
            *(
                nn.Sequential(ConvBlock(above, below, norm, stride=2), ConvBlock(below, below, norm))
                for above, below in pairwise(widths)
            ),
        )
        self.decoder = nn.Sequential(
            *(
                nn.Sequential(Up(below, above), ConvBlock(above, above, norm))
                for below, above in pairwise(reversed(widths))
            ),
            last_convolution(width, outputs),
        )

    def forward(self, image: Tensor) -> Tensor:
        """image [B, inputs, H, W] of about unit size -> [B, outputs, H, W], unbounded."""
        x = image
        for level in (*self.encoder, *self.decoder):
            x = self.run(level, x)
        return x
