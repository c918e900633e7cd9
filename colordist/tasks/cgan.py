"""Task ``cgan``: a generator learns to answer with colours that a discriminator takes for true.

Conditional GAN after pix2pix (Isola et al. 2017, arXiv 1611.07004): both networks see the grey image.
"""

import torch
from torch import Tensor

from colordist.config import LossConfig
from colordist.data.loader import Batch
from colordist.engine.network import Network
from colordist.tasks.augment import augment
from colordist.tasks.base import Calls, Loss
from colordist.tasks.candidates import answers, first, nearest
from colordist.tasks.losses import (
    cross_entropy,
    gradient_difference_loss,
    pixel_distance,
    real_or_fake,
    relativistic,
    squared_gradients,
)


class CGANTask:
    """In each step the discriminator learns first, then the generator, both from the same generated colours."""

    generators: tuple[str, ...] = ("generator",)

    def __init__(self, generator: Network, discriminator: Network, config: LossConfig) -> None:
        self.networks = {"generator": generator, "discriminator": discriminator}
        self.state: dict[str, Tensor] = {}
        self.config = config

    def phases(self, step: int) -> tuple[str, ...]:
        """Discriminator, then generator; during the warm-up the generator alone."""
        return ("generator",) if step < self.config.warmup_steps else ("discriminator", "generator")

    def generate(self, calls: Calls, batch: Batch) -> Tensor:
        """Colours from grey: [B * draws, C, H, W]."""
        return answers(calls["generator"], batch)

    def loss(self, phase: str, calls: Calls, batch: Batch, color: Tensor, step: int) -> Loss:
        """The loss of the network whose turn it is."""
        if phase == "discriminator":
            return self._discriminator_loss(calls, batch, first(color, batch).detach())
        return self._generator_loss(calls, batch, color, adversarial=step >= self.config.warmup_steps)

    def _discriminator_loss(self, calls: Calls, batch: Batch, color: Tensor) -> Loss:
        weights = {"r1": self.config.r1_weight, "r2": self.config.r2_weight}
        colors = torch.cat([batch.target, color]).requires_grad_(any(weights.values()))
        # Real and fake in one pass: one all-reduce, and twice the work a launch.
        logits = self._discriminate(calls, batch, colors)
        found = self._compare(*logits.chunk(2))
        total, parts = found.total, found.parts
        if colors.requires_grad:
            squares = squared_gradients(logits, colors).chunk(2)
            for (name, weight), each in zip(weights.items(), squares, strict=True):
                parts[name] = each.mean()
                total = total + weight / 2 * parts[name]
        return Loss(total, parts, diagnostics=found.diagnostics)

    def _compare(self, real: Tensor, fake: Tensor) -> Loss:
        """How badly the discriminator tells real from fake, by its logits."""
        if self.config.adversarial == "relativistic":
            loss = relativistic(real, fake)
            accuracy = (real > fake).to(real.dtype).mean()
            return Loss(loss, {"relativistic": loss}, diagnostics={"accuracy": accuracy})
        return real_or_fake(real, fake, self.config.label_smoothing)

    def _generator_loss(self, calls: Calls, batch: Batch, color: Tensor, *, adversarial: bool) -> Loss:
        near = nearest(self.config.pixel, color, batch)
        distance = pixel_distance(self.config.pixel, near, batch.target)
        parts: dict[str, Tensor] = {self.config.pixel: distance}
        total = self.config.pixel_weight * distance
        if self.config.gradient_loss_weight > 0:
            parts["gradient_difference"] = gradient_difference_loss(self.config.pixel, near, batch.target)
            total = total + self.config.gradient_loss_weight * parts["gradient_difference"]
        if adversarial:
            parts["adversarial"] = self._fool(calls, batch, first(color, batch))
            total = total + self.config.adversarial_weight * parts["adversarial"]
        return Loss(total, parts)

    def _fool(self, calls: Calls, batch: Batch, color: Tensor) -> Tensor:
        """How far the discriminator is from taking the colours for real, or for more real than the true ones."""
        logits = self._discriminate(calls, batch, color)
        if self.config.adversarial == "relativistic":
            with torch.no_grad():
                real = self._discriminate(calls, batch, batch.target)
            return relativistic(logits, real)
        return cross_entropy(logits, 1)  # the non-saturating loss: make the discriminator say "real"

    def _discriminate(self, calls: Calls, batch: Batch, colors: Tensor) -> Tensor:
        """The discriminator's logits of colours for the batch's grey images, or twice as many for each of them twice.

        What they go through first is the same for an image's true and generated colours: only what is of one piece of
        the picture can be compared pair by pair.
        """
        times = len(colors) // len(batch)
        grey, uniforms = torch.cat([batch.grey] * times), torch.cat([batch.uniforms] * times)
        return calls["discriminator"](*augment(self.config.augment, grey, colors, uniforms))
