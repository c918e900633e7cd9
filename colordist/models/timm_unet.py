"""Generator ``timm_unet``: a U-Net whose encoder is a timm model, pretrained or not."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from colordist.config import Config, GeneratorSettings, UserError, at_least
from colordist.models.activation_checkpointing import CheckpointedModule
from colordist.models.blocks import ConvBlock, Up, last_convolution, level_widths
from colordist.models.pretrained import NONE, Pretrained, check_sha256
from colordist.models.timm_encoder import TimmEncoder, encoder_levels


@dataclass(frozen=True, kw_only=True)
class TimmUNetSettings(GeneratorSettings):
    """Settings of the generator ``timm_unet``."""

    operational: ClassVar[frozenset[str]] = frozenset({"sha256"})
    weights_keys: ClassVar[frozenset[str]] = frozenset({"weights"})

    encoder: str = "resnet18"
    """Encoder: a model of timm with features at several resolutions."""
    weights: str = "pretrained"
    """Weights of the encoder: `pretrained` (timm fetches them), the path of a file, or `none` (random)."""
    sha256: str | None = None
    """SHA-256 that the file of weights must have. Default: not checked."""
    width: int = 16
    """Channels of the decoder at full resolution; doubled at each level, up to eight times this."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("model.width", self.width, 4)
        if not self.weights:
            raise UserError("model.weights is empty: try model.weights pretrained")
        check_sha256("model.weights", self.weights, "model.sha256", self.sha256)

    def check(self, config: Config) -> None:
        """Raise UserError for an unknown encoder, or one that doesn't fit the image size."""
        super().check(config)
        multiple, size = self.size_multiple, config.data.image_size
        if size % multiple or size < 2 * multiple:
            raise UserError(
                f"data.image_size is {size}, but model.encoder {self.encoder} needs a multiple of {multiple}, at least "
                f"{2 * multiple}: try data.image_size {max(2 * multiple, size // multiple * multiple)}"
            )

    @property
    def size_multiple(self) -> int:
        """Height and width must be multiples of this, in pixels."""
        return encoder_levels(self.encoder).strides[-1]

    @property
    def pretrained(self) -> tuple[str, ...]:
        """Names of the timm models whose weights training starts from."""
        return () if self.weights == NONE else (self.encoder,)


class TimmUNet(CheckpointedModule):
    """U-Net (Ronneberger et al. 2015, arXiv 1505.04597) with a timm model as encoder.

    Height and width: multiples of the encoder's largest stride. Levels finer than the encoder's come from a few
    convolutions on the image itself, so that there is a skip connection at every level up to full resolution.
    """

    Settings = TimmUNetSettings
    ENCODER = ("encoder",)

    def __init__(self, settings: TimmUNetSettings, *, inputs: int = 1, outputs: int = 2) -> None:
        """inputs, outputs: channels."""
        super().__init__()
        self.settings = settings
        levels = encoder_levels(settings.encoder)
        finer = levels.strides[0].bit_length() - 1
        widths = level_widths(settings.width, finer + len(levels.strides) - 2)  # of all levels but the coarsest
        self.encoder = TimmEncoder(settings.encoder, pretrained=settings.weights != NONE)
        self.stem = nn.ModuleList(
            ConvBlock(widths[level - 1] if level else inputs, widths[level], "group", stride=2 if level else 1)
            for level in range(finer)
        )
        skips = [*widths[:finer], *levels.channels]
        strides = [*(2**level for level in range(finer)), *levels.strides]
        below = [*widths[1:], skips[-1]]
        self.up = nn.ModuleList(
            Up(inner, outer, coarse // fine)
            for inner, outer, (fine, coarse) in zip(below, widths, pairwise(strides), strict=True)
        )
        self.merge = nn.ModuleList(
            ConvBlock(width + skip, width, "group") for width, skip in zip(widths, skips[:-1], strict=True)
        )
        self.last = last_convolution(widths[0], outputs)

    def load_pretrained(self) -> str | None:
        """Load the encoder's weights, which fetches them if need be. Returns their digest, None for random ones."""
        settings = self.settings
        if settings.weights == NONE:
            return None
        return self.encoder.load_pretrained(Pretrained(settings.encoder, settings.weights, settings.sha256))

    def forward(self, image: Tensor) -> Tensor:
        """image [B, inputs, H, W], grey in [-1, 1] -> [B, outputs, H, W], unbounded."""
        levels = []
        x = image
        for layer in self.stem:
            x = self.run(layer, x)
            levels.append(x)
        levels += self._encode(image)
        x = levels.pop()
        for index in reversed(range(len(self.up))):
            x = self.run(self._decode_level, index, x, levels.pop())
        color: Tensor = self.last(x)
        return color

    def _encode(self, image: Tensor) -> list[Tensor]:
        """Features of the encoder, fine to coarse."""
        return list(cast(Any, self.run(self.encoder, image)))

    def _decode_level(self, index: int, x: Tensor, skip: Tensor) -> Tensor:
        """Upsample to the next finer level and merge with the skip connection."""
        merged: Tensor = self.merge[index](torch.cat([self.up[index](x), skip], dim=1))
        return merged
