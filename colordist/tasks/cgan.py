"""Task ``cgan``: a generator learns to answer with colours that a discriminator takes for true.

Conditional GAN after pix2pix (Isola et al. 2017, arXiv 1611.07004): both networks see the grey image.
"""

import torch
from torch import Tensor

from colordist.config import LossConfig
from colordist.data.loader import Batch
from colordist.network import Network
from colordist.tasks.losses import cross_entropy, difference_distance, pixel_distance
from colordist.tasks.task import Calls, Loss


class CGANTask:
    """In each step the discriminator learns first, then the generator, both from the same generated colours."""

    generators: tuple[str, ...] = ("generator",)

    def __init__(self, generator: Network, discriminator: Network, config: LossConfig) -> None:
        self.networks = {"generator": generator, "discriminator": discriminator}
        self.config = config

    def phases(self, step: int) -> tuple[str, ...]:
        """Discriminator, then generator; during the warm-up the generator alone."""
        return ("generator",) if step < self.config.warmup_steps else ("discriminator", "generator")

    def generate(self, calls: Calls, batch: Batch) -> Tensor:
        """Colour [B, C, H, W] from grey."""
        return calls["generator"](batch.grey)

    def loss(self, phase: str, calls: Calls, batch: Batch, color: Tensor, step: int) -> Loss:
        """The loss of the network whose turn it is."""
        if phase == "discriminator":
            return self._discriminator_loss(calls, batch, color.detach())
        return self._generator_loss(calls, batch, color, adversarial=step >= self.config.warmup_steps)

    def _discriminator_loss(self, calls: Calls, batch: Batch, color: Tensor) -> Loss:
        # Real and fake in one pass: one all-reduce, and twice the work a launch.
        logits = calls["discriminator"](torch.cat([batch.grey, batch.grey]), torch.cat([batch.truth, color]))
        real, fake = logits.chunk(2)
        loss_real = cross_entropy(real, 1 - self.config.label_smoothing)
        loss_fake = cross_entropy(fake, 0)
        parts = {
            "real": loss_real,
            "fake": loss_fake,
            "accuracy_real": (real > 0).to(real.dtype).mean(),
            "accuracy_fake": (fake < 0).to(fake.dtype).mean(),
        }
        return Loss((loss_real + loss_fake) / 2, parts)

    def _generator_loss(self, calls: Calls, batch: Batch, color: Tensor, *, adversarial: bool) -> Loss:
        distance = pixel_distance(self.config.pixel, color, batch.truth)
        parts: dict[str, Tensor] = {self.config.pixel: distance}
        total = self.config.pixel_weight * distance
        if self.config.difference_weight > 0:
            parts["difference"] = difference_distance(self.config.pixel, color, batch.truth)
            total = total + self.config.difference_weight * parts["difference"]
        if adversarial:
            # The non-saturating loss: make the discriminator say "real".
            parts["adversarial"] = cross_entropy(calls["discriminator"](batch.grey, color), 1)
            total = total + self.config.adversarial_weight * parts["adversarial"]
        return Loss(total, parts)
