"""Convolutional autoencoder: everything passes through the bottleneck."""

from itertools import pairwise

from torch import Tensor, nn

from colordist.config import Norm
from colordist.models.activation_checkpointing import CheckpointedModule
from colordist.models.blocks import ConvBlock, Up, last_convolution, level_widths


class Autoencoder(CheckpointedModule):
    """Encoder and decoder without skip connections, from grey to colour.

    Any height and width that 2**depth divides. Detail that the bottleneck loses is lost: in ``lab`` mode that blurs
    only the colours, because the lightness is the input's.
    """

    ENCODER = ("encoder",)

    def __init__(
        self, *, inputs: int, outputs: int, width: int, depth: int, bottleneck: int | None, norm: Norm
    ) -> None:
        super().__init__()
        widths = level_widths(width, depth, bottleneck)
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
        """image [B, inputs, H, W], grey as a rule, of about unit size -> [B, outputs, H, W], unbounded."""
        x = image
        for level in (*self.encoder, *self.decoder):
            x = self.run(level, x)
        return x
