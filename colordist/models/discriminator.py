"""Discriminator: is this the true colour of this grey image? Or, given an image alone: is this a true one?"""

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from colordist.config import Norm
from colordist.models.activation_checkpointing import CheckpointedModule
from colordist.models.blocks import add_spectral_norm, convolution, level_widths, normalisation


class Discriminator(CheckpointedModule):
    """Discriminator for patches (Isola et al. 2017, arXiv 1611.07004) or for whole images.

    A conditional one sees grey and colour together. No normalisation after the first layer, as in DCGAN (arXiv
    1511.06434).
    """

    def __init__(
        self,
        *,
        inputs: int,
        width: int,
        depth: int,
        output: Literal["patch", "image"],
        norm: Norm,
        spectral_norm: bool,
        offset: bool,
    ) -> None:
        """offset: whether it may add the same to all logits: nothing teaches it what, where only differences count."""
        super().__init__()
        widths = level_widths(width, depth)
        # The first layer works at full resolution: that neighbouring pixels have the same colour is easily seen there.
        layers: list[nn.Module] = [convolution(inputs, width, "none"), nn.LeakyReLU(0.2, inplace=True)]
        for above, below in pairwise(widths):
            layers += [
                convolution(above, below, norm, kernel=4, stride=2),
                normalisation(norm, below),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 3, padding=1, bias=offset))
        self.output = output
        if spectral_norm:
            add_spectral_norm(self)

    def forward(self, *images: Tensor) -> Tensor:
        """Images [B, C, H, W] that belong together, in all of ``inputs`` channels -> logits [B, 1, H', W'] or [B, 1].

        One logit a patch, or one an image.
        """
        x = torch.cat(images, dim=1)
        logits: Tensor = self._by_levels(x) if self.activation_checkpointing else self.layers(x)
        return logits if self.output == "patch" else logits.mean(dim=(2, 3))

    def _by_levels(self, x: Tensor) -> Tensor:
        """The same, but the first two convolutions at once: most of what is to be kept lies between them."""
        for begin, end in pairwise([0, *range(5, len(self.layers), 3)]):
            x = self.run(self.layers[begin:end], x)
        logits: Tensor = self.layers[-1](x)
        return logits
