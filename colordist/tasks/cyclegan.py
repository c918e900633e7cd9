"""Task ``cyclegan``: unpaired grey and colour images, and a mapping each way.

Zhu et al. 2017 (arXiv 1703.10593). The generator colours; the decolorizer makes colour images grey; each domain has its
own, unconditional discriminator. In place of pairs: the cycle-consistency loss.

Here the mapping from colour to grey has one right answer, and the colour image shows it: in ``lab`` mode grey is one of
its channels, which the decolorizer only has to copy; in ``rgb`` it is a weighted sum. Once it does so, the cycle from
colour to colour is regression on pairs that nobody gave; what the adversarial loss adds is vivid colours.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from colordist.config import Config, UserError, at_least
from colordist.data.batch import Batch
from colordist.models.factory import ModelFactory
from colordist.tasks.adversarial import AdversarialSettings
from colordist.tasks.base import Calls, Loss, NetworkSpec, Task
from colordist.tasks.image_buffer import empty_buffer, exchange
from colordist.tasks.losses import cross_entropy, pixel_distance, real_or_fake

# The columns of Batch.uniforms that decide which image a discriminator gets from its buffer.
_UNIFORMS = {"discriminator": slice(4, 6), "grey_discriminator": slice(6, 8)}
_CHANNELS = {"discriminator": 3, "grey_discriminator": 1}


@dataclass(frozen=True, kw_only=True)
class CycleGANSettings(AdversarialSettings):
    """Settings of the task ``cyclegan``."""

    pixel: Literal["l1", "l2"] = "l1"
    """Distance of the cycle and identity losses."""
    cycle_weight: float = 10.0
    """Weight of the cycle-consistency loss in either direction."""
    identity_weight: float = 5.0
    """Weight of the identity loss of the decolorizer on grey images."""
    image_buffer_slots: int = 3
    """Image buffer: earlier generated images kept per sample of the global batch (arXiv 1612.07828); 0: off."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("cycle_weight", "identity_weight", "image_buffer_slots"):
            at_least(f"task.{key}", getattr(self, key), 0)

    def check(self, config: Config) -> None:
        """Raise UserError for a combination that can't work."""
        super().check(config)
        self.require_warmup_loss("task.cycle_weight", self.cycle_weight)
        if config.model.noise_size:
            raise UserError(
                f"model.noise is {config.model.noise_size}, but task cyclegan takes none: try model.noise 0"
            )


@dataclass(frozen=True)
class Fakes:
    """The results of both generators."""

    image: Tensor
    """Colour images [B, 3, H, W] from ``batch.grey``."""
    grey: Tensor
    """Grey images [B, 1, H, W] from the colour images of ``batch.target``."""


class CycleGANTask(Task):
    """Phases: both discriminators, the generator, the decolorizer.

    Each minimises the same sum of losses with respect to its own weights; terms that don't depend on those are left
    out. It takes the other networks as they are in its phase.
    """

    Settings = CycleGANSettings
    settings: CycleGANSettings
    description = "as a CycleGAN: from grey images and colour images of other things, without pairs"
    generators = ("generator", "decolorizer")
    unpaired = True

    def build(self, factory: ModelFactory) -> dict[str, NetworkSpec]:
        """Two generators and two discriminators; the two of a kind share their settings."""
        return {
            "generator": NetworkSpec(factory.generator(), ema=True),
            "decolorizer": NetworkSpec(factory.generator(2, inputs=3, outputs=1)),
            "discriminator": NetworkSpec(factory.discriminator(1, inputs=3), optimizer="discriminator"),
            "grey_discriminator": NetworkSpec(factory.discriminator(3, inputs=1), optimizer="discriminator"),
        }

    def initial_state(self, global_batch_size: int, image_size: int) -> dict[str, Tensor]:
        """Empty image buffers, one for each discriminator."""
        slots = self.settings.image_buffer_slots
        buffers = _CHANNELS if slots else {}
        return {name: empty_buffer(global_batch_size, slots, each, image_size) for name, each in buffers.items()}

    def phases(self, step: int) -> tuple[str, ...]:
        """All four networks; during the warm-up the generators alone."""
        discriminators = () if step < self.settings.warmup_steps else ("discriminator", "grey_discriminator")
        return *discriminators, *self.generators

    def generate(self, calls: Calls, batch: Batch) -> Fakes:
        """Colour images from grey, and grey from colour images."""
        return Fakes(self._colored(calls, batch.grey), calls["decolorizer"](self._target(batch)))

    def loss(self, phase: str, calls: Calls, batch: Batch, generated: Fakes, step: int) -> Loss:
        """The loss of the phase's network."""
        if phase == "discriminator":
            return self._discriminator_loss(phase, calls, batch, self._target(batch), generated.image.detach())
        if phase == "grey_discriminator":
            return self._discriminator_loss(phase, calls, batch, batch.grey, generated.grey.detach())
        aims = self._generator_aims if phase == "generator" else self._decolorizer_aims
        return self._weighed(aims(calls, batch, generated, adversarial=step >= self.settings.warmup_steps))

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
        return replace(real_or_fake(on_true, on_fake, self.settings.label_smoothing), state=state)

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
        return pixel_distance(self.settings.pixel, found, wanted)

    def _weighed(self, aims: dict[str, Tensor]) -> Loss:
        weights = {
            "adversarial": self.settings.adversarial_weight,
            "cycle_grey": self.settings.cycle_weight,
            "cycle_color": self.settings.cycle_weight,
            "identity": self.settings.identity_weight,
        }
        return Loss(torch.stack([weights[name] * aim for name, aim in aims.items()]).sum(), aims)
