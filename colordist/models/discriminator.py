"""Discriminator ``patchgan``: convolutional, with a logit per patch or per image, conditional or unconditional."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from colordist.config import Config, DiscriminatorSettings
from colordist.models.activation_checkpointing import CheckpointedModule
from colordist.models.blocks import Norm, convolution, level_widths, normalisation
from colordist.models.spectral_norm import add_spectral_norm
from colordist.ranges import at_least, divides, in_range


@dataclass(frozen=True, kw_only=True)
class PatchGANSettings(DiscriminatorSettings):
    """Settings of the discriminator ``patchgan``."""

    width: int = 16
    """Channels of the first layer; doubled at each level, up to eight times this."""
    depth: int = 3
    """Levels of downsampling by 2."""
    output: Literal["patch", "image"] = "patch"
    """One logit per patch (PatchGAN) or per image."""
    norm: Norm = "none"
    """Normalisation after each convolution except the first."""
    spectral_norm: bool = True
    """Spectral normalisation of every convolution (arXiv 1802.05957)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("discriminator.width", self.width, 4, 2**16)
        in_range("discriminator.depth", self.depth, 1, 8)

    def check(self, config: Config) -> None:
        """Raise UserError if depth doesn't fit the image size."""
        super().check(config)
        divides("discriminator.depth", self.depth, config.data.image_size)


class Discriminator(CheckpointedModule):
    """PatchGAN discriminator (Isola et al. 2017, arXiv 1611.07004), or one for whole images.

    Conditional if its input is grey and colour channels. No normalisation after the first layer, as in DCGAN (arXiv
    1511.06434).
    """

    Settings = PatchGANSettings

    def __init__(self, settings: PatchGANSettings, *, inputs: int, bias: bool = True) -> None:
        """inputs: total number of input channels. bias: of the last layer."""
        super().__init__()
        norm, widths = settings.norm, level_widths(settings.width, settings.depth)
        # The first layer has full resolution: there it is easy to tell whether colours are smooth.
        layers: list[nn.Module] = [convolution(inputs, settings.width, "none"), nn.LeakyReLU(0.2, inplace=True)]
        for above, below in pairwise(widths):
            layers += [
                convolution(above, below, norm, kernel=4, stride=2),
                normalisation(norm, below),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 3, padding=1, bias=bias))
        self.output = settings.output
        if settings.spectral_norm:
            add_spectral_norm(self)

    def forward(self, *images: Tensor) -> Tensor:
        """Images [B, C, H, W] with ``inputs`` channels in total -> logits [B, 1, H', W'] per patch, or [B, 1]."""
        x = torch.cat(images, dim=1)
        logits: Tensor = self._by_levels(x) if self.activation_checkpointing else self.layers(x)
        return logits if self.output == "patch" else logits.mean(dim=(2, 3))

    def _by_levels(self, x: Tensor) -> Tensor:
        """Forward by checkpointed levels, the first two convolutions as one: most activations lie between them."""
        for begin, end in pairwise([0, *range(5, len(self.layers), 3)]):
            x = self.run(self.layers[begin:end], x)
        logits: Tensor = self.layers[-1](x)
        return logits
