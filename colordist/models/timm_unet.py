"""Generator ``timm_unet``: a U-Net whose encoder is a timm model, pretrained or not."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, repeat, zip_longest
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from colordist.config import Config, GeneratorSettings
from colordist.errors import UserError
from colordist.models.activation_checkpointing import CheckpointedModule
from colordist.models.blocks import ConvBlock, Up, last_convolution, level_widths
from colordist.models.pretrained import NONE, Pretrained, check_sha256
from colordist.models.time_embedding import Film, TimeEmbedding, modulated
from colordist.models.timm_encoder import TimmEncoder, encoder_levels
from colordist.ranges import at_least


@dataclass(frozen=True, kw_only=True)
class TimmUNetSettings(GeneratorSettings):
    """Settings of the generator ``timm_unet``."""

    operational: ClassVar[frozenset[str]] = frozenset({"sha256"})
    weights_keys: ClassVar[frozenset[str]] = frozenset({"weights"})
    has_time_input: ClassVar[bool] = True
    has_condition_input: ClassVar[bool] = True

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
        at_least("model.width", self.width, 4, 2**16)
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

    A network with conditions, colours on a path or hints, has these convolutions at all levels, for all input channels.
    Its encoder sees the image alone, so it runs once per image and not once per solver step.
    """

    Settings = TimmUNetSettings
    ENCODER = ("encoder",)

    def __init__(
        self,
        settings: TimmUNetSettings,
        *,
        inputs: int = 1,
        outputs: int = 2,
        conditions: int = 0,
        time_conditioned: bool = False,
    ) -> None:
        """inputs, outputs: channels.

        conditions: how many of the inputs, the last ones, are no image; with a time input at least all but one.

        time_conditioned: whether the network has a time input.
        """
        super().__init__()
        self.settings = settings
        if time_conditioned and not conditions:
            conditions = inputs - 1
        levels = encoder_levels(settings.encoder)
        finer = levels.strides[0].bit_length() - 1
        strides = [*(2**level for level in range(finer)), *levels.strides]
        widths = level_widths(settings.width, len(strides) - 1)
        stems = widths if conditions else widths[:finer]
        self.image_channels, self.is_conditioned = inputs - conditions, conditions > 0
        self.encoder = TimmEncoder(settings.encoder, pretrained=settings.weights != NONE)
        self.stem = nn.ModuleList(
            ConvBlock(before, after, "group", stride=coarse // fine)
            for before, after, (fine, coarse) in zip([inputs, *stems], stems, pairwise([1, *strides]), strict=False)
        )
        skips = [sum(pair) for pair in zip_longest(stems, [0] * finer + [*levels.channels], fillvalue=0)]
        below = [*widths[1:-1], skips[-1]]
        self.up = nn.ModuleList(
            Up(inner, outer, coarse // fine)
            for inner, outer, (fine, coarse) in zip(below, widths, pairwise(strides), strict=False)
        )
        self.merge = nn.ModuleList(
            ConvBlock(width + skip, width, "group") for width, skip in zip(widths, skips[:-1], strict=False)
        )
        self.last = last_convolution(widths[0], outputs)
        self.time = TimeEmbedding([*stems, *widths[-2::-1]], 8 * settings.width) if time_conditioned else None

    def load_pretrained(self) -> str | None:
        """Load the encoder's weights, which fetches them if need be. Returns their digest, None for random ones."""
        settings = self.settings
        if settings.weights == NONE:
            return None
        return self.encoder.load_pretrained(Pretrained(settings.encoder, settings.weights, settings.sha256))

    def forward(self, image: Tensor, time: Tensor | None = None, features: Sequence[Tensor] | None = None) -> Tensor:
        """image [B, inputs, H, W], about [-1, 1], conditions last -> [B, outputs, H, W], unbounded.

        time: [B] in [0, 1]; it modulates all levels. features: those of ``encode_grey``, if it ran before.
        """
        films = repeat(None) if self.time is None else iter(self.time(time))
        if features is None:
            features = self.encode_grey(image[:, : self.image_channels])
        x, stem = image, []
        for layer in self.stem:
            x = self.run(_stem_level, layer, x, next(films))
            stem.append(x)
        if self.is_conditioned:
            finer = len(stem) - len(features)
            features = [torch.cat(pair, dim=1) for pair in zip(stem[finer:], features, strict=True)]
            stem = stem[:finer]
        levels = [*stem, *features]
        x = levels.pop()
        for index in reversed(range(len(self.up))):
            x = self.run(self._decode_level, index, x, levels.pop(), next(films))
        color: Tensor = self.last(x)
        return color

    def encode_grey(self, grey: Tensor) -> list[Tensor]:
        """Features of the encoder, fine to coarse. grey: [B, 1, H, W] in [-1, 1]."""
        return list(cast(Any, self.run(self.encoder, grey)))

    def _decode_level(self, index: int, x: Tensor, skip: Tensor, film: Film | None) -> Tensor:
        """Upsample to the next finer level and merge with the skip connection."""
        merged: Tensor = self.merge[index](torch.cat([self.up[index](x), skip], dim=1))
        return modulated(merged, film)


def _stem_level(level: nn.Module, x: Tensor, film: Film | None) -> Tensor:
    """Run convolutions on the image itself."""
    return modulated(level(x), film)
