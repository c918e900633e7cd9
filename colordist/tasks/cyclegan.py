"""Task ``cyclegan``: grey and colour images that don't belong together, and a way from each kind to the other.

Zhu et al. 2017 (arXiv 1703.10593). The generator colours; the decolorizer makes colour images grey; each kind of image
has its own discriminator, which judges an image by itself. What stands in for pairs: there and back again, an image
should be the same (cycle loss).

Here the way from colour to grey has one right answer, and the colour image shows it: in ``lab`` mode grey is one of its
channels, which the decolorizer only has to copy; in ``rgb`` it is a weighted sum. Once it does so, the cycle from
colour to colour is regression on pairs that nobody gave; what the adversarial loss adds is colours that are vivid.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from colordist.color import ColorSpace
from colordist.config import LossConfig
from colordist.data.loader import Batch
from colordist.tasks.base import Calls, Loss, NetworkSpec
from colordist.tasks.image_buffer import exchange
from colordist.tasks.losses import cross_entropy, pixel_distance, real_or_fake

# Which columns of Batch.chance decide what a discriminator is shown of its pool.
_UNIFORMS = {"discriminator": slice(4, 6), "grey_discriminator": slice(6, 8)}


@dataclass(frozen=True)
class Fakes:
    """What both generators make of a batch."""

    image: Tensor
    """Colour images [B, 3, H, W] from ``batch.grey``."""
    grey: Tensor
    """Grey images [B, 1, H, W] from the colour images of ``batch.truth``."""


class CycleGANTask:
    """In each step both discriminators learn, then the generator, then the decolorizer.

    Each learns by the gradient of one and the same sum of losses with respect to its own weights: what doesn't depend
    on those is left out. It takes the other networks as they are at its turn.
    """

    generators: tuple[str, ...] = ("generator", "decolorizer")

    def __init__(
        self, modules: dict[str, nn.Module], buffers: dict[str, Tensor], color_space: ColorSpace, config: LossConfig
    ) -> None:
        """modules: generator, decolorizer, discriminator and grey_discriminator, by name.

        buffers: as ``empty_buffer`` makes them, by the name of the discriminator; empty without image buffers.
        """
        self.networks = {
            "generator": NetworkSpec(modules["generator"], "generator", ema=True),
            "decolorizer": NetworkSpec(modules["decolorizer"], "generator"),
            "discriminator": NetworkSpec(modules["discriminator"], "discriminator"),
            "grey_discriminator": NetworkSpec(modules["grey_discriminator"], "discriminator"),
        }
        self.state = buffers
        self.color_space = color_space
        self.config = config

    def phases(self, step: int) -> tuple[str, ...]:
        """All four networks; during the warm-up the generators alone."""
        discriminators = () if step < self.config.warmup_steps else ("discriminator", "grey_discriminator")
        return *discriminators, *self.generators

    def generate(self, calls: Calls, batch: Batch) -> Fakes:
        """Colour images from grey, and grey from colour images."""
        return Fakes(self._colored(calls, batch.grey), calls["decolorizer"](self._target(batch)))

    def loss(self, phase: str, calls: Calls, batch: Batch, generated: Fakes, step: int) -> Loss:
        """The loss of the network whose turn it is."""
        if phase == "discriminator":
            return self._discriminator_loss(phase, calls, batch, self._target(batch), generated.image.detach())
        if phase == "grey_discriminator":
            return self._discriminator_loss(phase, calls, batch, batch.grey, generated.grey.detach())
        aims = self._generator_aims if phase == "generator" else self._decolorizer_aims
        return self._weighed(aims(calls, batch, generated, adversarial=step >= self.config.warmup_steps))

    def _target(self, batch: Batch) -> Tensor:
        """The true colour images [B, 3, H, W]."""
        return self.color_space.image(batch.target_grey, batch.target)

    def _colored(self, calls: Calls, grey: Tensor) -> Tensor:
        """The colour images [B, 3, H, W] that the generator makes of grey ones."""
        return self.color_space.image(grey, calls["generator"](grey))

    def _discriminator_loss(self, phase: str, calls: Calls, batch: Batch, true: Tensor, fake: Tensor) -> Loss:
        state: dict[str, Tensor] = {}
        if phase in self.state:
            buffer, uniforms = self.state[phase][batch.batch_index], batch.uniforms[:, _UNIFORMS[phase]]
            fake, state[phase] = exchange(buffer, fake, uniforms)
        on_true, on_fake = calls[phase](torch.cat([true, fake])).chunk(2)
        return replace(real_or_fake(on_true, on_fake, self.config.label_smoothing), state=state)

    def _generator_aims(self, calls: Calls, batch: Batch, generated: Fakes, *, adversarial: bool) -> dict[str, Tensor]:
        """No identity loss: a colour image doesn't fit into the generator, which takes one channel."""
        aims: dict[str, Tensor] = {}
        if adversarial:
            aims["adversarial"] = cross_entropy(calls["discriminator"](generated.image), 1)
        aims["cycle_grey"] = self._distance(calls["decolorizer"](generated.image), batch.grey)
        aims["cycle_color"] = self._distance(self._colored(calls, generated.grey.detach()), self._target(batch))
        return aims

    def _decolorizer_aims(
        self, calls: Calls, batch: Batch, generated: Fakes, *, adversarial: bool
    ) -> dict[str, Tensor]:
        """What has no colour is to stay as it is: the identity loss."""
        aims: dict[str, Tensor] = {}
        if adversarial:
            aims["adversarial"] = cross_entropy(calls["grey_discriminator"](generated.grey), 1)
        with torch.no_grad():  # not the images in ``generated``: the generator has learned since
            image = self._colored(calls, batch.grey)
        colorless = self.color_space.colorless(batch.grey)
        back, same = calls["decolorizer"](torch.cat([image, colorless])).chunk(2)
        aims["cycle_grey"] = self._distance(back, batch.grey)
        aims["cycle_color"] = self._distance(self._colored(calls, generated.grey), self._target(batch))
        aims["identity"] = self._distance(same, batch.grey)
        return aims

    def _distance(self, found: Tensor, wanted: Tensor) -> Tensor:
        return pixel_distance(self.config.pixel, found, wanted)

    def _weighed(self, aims: dict[str, Tensor]) -> Loss:
        weights = {
            "adversarial": self.config.adversarial_weight,
            "cycle_grey": self.config.cycle_weight,
            "cycle_color": self.config.cycle_weight,
            "identity": self.config.identity_weight,
        }
        return Loss(torch.stack([weights[name] * aim for name, aim in aims.items()]).sum(), aims)
