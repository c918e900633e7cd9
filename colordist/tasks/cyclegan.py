"""Task ``cyclegan``: unpaired grey and colour images, and a generator in each direction.

Zhu et al. 2017 (arXiv 1703.10593). The generator maps grey to colour, the decolorizer colour to grey; each domain has
an unconditional discriminator. The cycle-consistency loss replaces pairs.

The mapping from colour to grey is known and easy to learn: in ``lab`` mode the decolorizer copies a channel, in ``rgb``
it is a weighted sum. The cycle from colour to colour is then paired regression; the adversarial loss adds vivid
colours.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from colordist.config import Config
from colordist.data.batch import Batch
from colordist.errors import UserError
from colordist.models.factory import ModelFactory
from colordist.ranges import at_least
from colordist.tasks.adversarial import AdversarialSettings
from colordist.tasks.base import Calls, Loss, NetworkSpec, Task
from colordist.tasks.image_buffer import empty_buffer, exchange
from colordist.tasks.losses import bce, discriminator_bce, pixel_distance

# Columns of Batch.uniforms for the image buffer of each discriminator.
_UNIFORMS = {"discriminator": slice(4, 6), "grey_discriminator": slice(6, 8)}
_CHANNELS = {"discriminator": 3, "grey_discriminator": 1}


@dataclass(frozen=True, kw_only=True)
class CycleGANSettings(AdversarialSettings):
    """Settings of the task ``cyclegan``."""

    pixel: Literal["l1", "l2"] = "l1"
    """Distance of the cycle and identity losses."""
    cycle_weight: float = 10.0
    """Weight of the cycle-consistency loss, in both directions."""
    identity_weight: float = 5.0
    """Weight of the decolorizer's identity loss on grey images."""
    image_buffer_slots: int = 3
    """Image buffer: past generated images kept per sample of the global batch (arXiv 1612.07828); 0: off."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("cycle_weight", "identity_weight", "image_buffer_slots"):
            at_least(f"task.{key}", getattr(self, key), 0)

    def check(self, config: Config) -> None:
        """Raise UserError for incompatible settings."""
        super().check(config)
        self.require_warmup_loss("task.cycle_weight", self.cycle_weight)
        if config.model.noise_size:
            raise UserError(
                f"model.noise is {config.model.noise_size}, but task cyclegan takes none: try model.noise 0"
            )


@dataclass(frozen=True)
class Fakes:
    """Output of both generators."""

    image: Tensor
    """Colour images [B, 3, H, W], from ``batch.grey``."""
    grey: Tensor
    """Grey images [B, 1, H, W], from the colour images in ``batch.target``."""


class CycleGANTask(Task):
    """Phases: both discriminators, the generator, the decolorizer.

    Each minimises the same sum of losses with respect to its weights, without the terms that don't depend on them.
    """

    Settings = CycleGANSettings
    settings: CycleGANSettings
    description = "as a CycleGAN, on unpaired grey and colour images"
    generators = ("generator", "decolorizer")
    unpaired = True

    def build(self, factory: ModelFactory) -> dict[str, NetworkSpec]:
        """Two generators and two discriminators; both of a kind have the same settings."""
        return {
            "generator": NetworkSpec(factory.generator(), ema=True),
            "decolorizer": NetworkSpec(factory.generator(2, inputs=3, outputs=1)),
            "discriminator": NetworkSpec(factory.discriminator(1, inputs=3), optimizer="discriminator"),
            "grey_discriminator": NetworkSpec(factory.discriminator(3, inputs=1), optimizer="discriminator"),
        }

    def initial_state(self, samples: int, image_size: int) -> dict[str, Tensor]:
        """An empty image buffer per discriminator."""
        slots = self.settings.image_buffer_slots
        buffers = _CHANNELS if slots else {}
        return {name: empty_buffer(samples, slots, each, image_size) for name, each in buffers.items()}

    def phases(self, step: int) -> tuple[str, ...]:
        """All four networks; the generators only during the warm-up."""
        discriminators = () if step < self.settings.warmup_steps else ("discriminator", "grey_discriminator")
        return *discriminators, *self.generators

    def generate(self, calls: Calls, batch: Batch) -> Fakes:
        """Generate colour images from grey, and grey from colour images."""
        return Fakes(self._colored(calls, batch.grey), calls["decolorizer"](self._target(batch)))

    def loss(self, phase: str, calls: Calls, batch: Batch, generated: Fakes, step: int) -> Loss:
        """Loss of the phase's network."""
        if phase == "discriminator":
            return self._discriminator_loss(phase, calls, batch, self._target(batch), generated.image.detach())
        if phase == "grey_discriminator":
            return self._discriminator_loss(phase, calls, batch, batch.grey, generated.grey.detach())
        terms = self._generator_terms if phase == "generator" else self._decolorizer_terms
        return self._weighted_sum(terms(calls, batch, generated, adversarial=step >= self.settings.warmup_steps))

    def _target(self, batch: Batch) -> Tensor:
        """Real colour images [B, 3, H, W]."""
        return self.color_space.image(batch.target_grey, batch.target)

    def _colored(self, calls: Calls, grey: Tensor) -> Tensor:
        """Generated colour images [B, 3, H, W]."""
        return self.color_space.image(grey, calls["generator"](grey))

    def _discriminator_loss(self, phase: str, calls: Calls, batch: Batch, real: Tensor, fake: Tensor) -> Loss:
        state: dict[str, Tensor] = {}
        if phase in self.state:
            buffer, uniforms = self.state[phase][batch.share_index], batch.uniforms[:, _UNIFORMS[phase]]
            fake, state[phase] = exchange(buffer, fake, uniforms)
        on_real, on_fake = calls[phase](torch.cat([real, fake])).chunk(2)
        return replace(discriminator_bce(on_real, on_fake, self.settings.label_smoothing), state=state)

    def _generator_terms(self, calls: Calls, batch: Batch, generated: Fakes, *, adversarial: bool) -> dict[str, Tensor]:
        """Without identity loss: the generator's input has one channel."""
        terms: dict[str, Tensor] = {}
        if adversarial:
            terms["adversarial"] = bce(calls["discriminator"](generated.image), 1)
        terms["cycle_grey"] = self._distance(calls["decolorizer"](generated.image), batch.grey)
        terms["cycle_color"] = self._distance(self._colored(calls, generated.grey.detach()), self._target(batch))
        return terms

    def _decolorizer_terms(
        self, calls: Calls, batch: Batch, generated: Fakes, *, adversarial: bool
    ) -> dict[str, Tensor]:
        """With identity loss: a grey image should stay as it is."""
        terms: dict[str, Tensor] = {}
        if adversarial:
            terms["adversarial"] = bce(calls["grey_discriminator"](generated.grey), 1)
        with torch.no_grad():  # not ``generated.image``: the generator has been updated since
            image = self._colored(calls, batch.grey)
        colorless = self.color_space.colorless(batch.grey)
        back, same = calls["decolorizer"](torch.cat([image, colorless])).chunk(2)
        terms["cycle_grey"] = self._distance(back, batch.grey)
        terms["cycle_color"] = self._distance(self._colored(calls, generated.grey), self._target(batch))
        terms["identity"] = self._distance(same, batch.grey)
        return terms

    def _distance(self, image: Tensor, target: Tensor) -> Tensor:
        return pixel_distance(self.settings.pixel, image, target)

    def _weighted_sum(self, terms: dict[str, Tensor]) -> Loss:
        weights = {
            "adversarial": self.settings.adversarial_weight,
            "cycle_grey": self.settings.cycle_weight,
            "cycle_color": self.settings.cycle_weight,
            "identity": self.settings.identity_weight,
        }
        return Loss(torch.stack([weights[name] * term for name, term in terms.items()]).sum(), terms)
