"""Task ``cgan``: a conditional GAN.

As in pix2pix (Isola et al. 2017, arXiv 1611.07004) the discriminator is conditioned on the grey image.
"""

import dataclasses
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from colordist.config import Config
from colordist.data.batch import Batch
from colordist.errors import UserError
from colordist.models.factory import ModelFactory
from colordist.ranges import at_least
from colordist.tasks.adversarial import AdversarialSettings
from colordist.tasks.augment import AUGMENTATIONS, augment
from colordist.tasks.base import Calls, Loss, NetworkSpec, Task
from colordist.tasks.candidates import CandidateSettings, best_by_region, first_candidate, generate_candidates
from colordist.tasks.feature_loss import FeatureLossSettings, feature_loss, feature_networks
from colordist.tasks.hints import HintSettings
from colordist.tasks.losses import (
    bce,
    discriminator_bce,
    gradient_difference_loss,
    pixel_distance,
    relativistic,
    squared_gradient_norm,
)


@dataclass(frozen=True, kw_only=True)
class CGANSettings(CandidateSettings, HintSettings, FeatureLossSettings, AdversarialSettings):
    """Settings of the task ``cgan``."""

    pixel_weight: float = 1.0
    """Weight of the pixel loss."""
    gradient_loss_weight: float = 10.0
    """Weight of the gradient difference loss (arXiv 1511.05440)."""
    adversarial: Literal["bce", "relativistic"] = "bce"
    """Adversarial loss: non-saturating BCE, or relativistic pairing (arXiv 1807.00734, 2501.05441)."""
    r1_weight: float = 0.0
    """Gamma of the R1 gradient penalty, at real images (arXiv 1801.04406); 0: off."""
    r2_weight: float = 0.0
    """Gamma of the R2 gradient penalty, at generated images; 0: off."""
    augment: list[str] = dataclasses.field(default_factory=list)
    """Differentiable augmentation of the discriminator's input: `translation`, `cutout` (arXiv 2006.10738)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("pixel_weight", "gradient_loss_weight", "r1_weight", "r2_weight"):
            at_least(f"task.{key}", getattr(self, key), 0)
        if self.adversarial == "relativistic" and self.label_smoothing > 0:
            raise UserError(
                f"task.label_smoothing is {self.label_smoothing}, but task.adversarial relativistic has no labels: "
                "try task.label_smoothing 0"
            )
        for name in self.augment:
            if name not in AUGMENTATIONS:
                raise UserError(f"task.augment has {name}: try {' or '.join(AUGMENTATIONS)}")

    def check(self, config: Config) -> None:
        """Raise UserError for incompatible settings."""
        super().check(config)
        self.require_warmup_loss("task.pixel_weight", self.pixel_weight)
        if config.train.compile != "off" and self.gradient_penalties:
            raise UserError(
                f"train.compile is {config.train.compile}, but compiled networks have no second derivatives, which "
                "task.r1_weight and task.r2_weight need: try train.compile off"
            )

    @property
    def gradient_penalties(self) -> dict[str, float]:
        """Weights of losses with second derivatives, by key."""
        weights = {"task.r1_weight": self.r1_weight, "task.r2_weight": self.r2_weight}
        return {key: weight for key, weight in weights.items() if weight > 0}


class CGANTask(Task):
    """The discriminator's phase, then the generator's, both on the same generated colours."""

    Settings = CGANSettings
    settings: CGANSettings
    description = "as a conditional GAN, whose discriminator is conditioned on the grey image"

    def build(self, factory: ModelFactory) -> dict[str, NetworkSpec]:
        """Generator and discriminator."""
        self.frozen = feature_networks(self.settings)
        # A relativistic loss depends on differences of logits alone: the last bias would get no gradient.
        bias = self.settings.adversarial == "bce"
        discriminator = factory.discriminator(1, inputs=1 + self.color_space.channels, bias=bias)
        return {
            **self.build_sampled(factory),
            "discriminator": NetworkSpec(discriminator, optimizer="discriminator"),
        }

    @property
    def candidates(self) -> int:
        """Candidates per training image."""
        return self.settings.candidates

    def phases(self, step: int) -> tuple[str, ...]:
        """Discriminator, then generator; generator only during the warm-up."""
        return ("generator",) if step < self.settings.warmup_steps else ("discriminator", "generator")

    def generate(self, calls: Calls, batch: Batch) -> Tensor:
        """Generate colours from grey: [B * candidates, C, H, W]."""
        return generate_candidates(calls["generator"], batch)

    def loss(self, phase: str, calls: Calls, batch: Batch, color: Tensor, step: int) -> Loss:
        """Loss of the phase's network."""
        if phase == "discriminator":
            return self._discriminator_loss(calls, batch, first_candidate(color, batch).detach())
        return self._generator_loss(calls, batch, color, adversarial=step >= self.settings.warmup_steps)

    def _discriminator_loss(self, calls: Calls, batch: Batch, fake: Tensor) -> Loss:
        weights = {"r1": self.settings.r1_weight, "r2": self.settings.r2_weight}
        colors = torch.cat([batch.target, fake]).requires_grad_(any(weights.values()))
        # Real and fake in one batch: one forward pass, one all-reduce.
        logits = self._discriminate(calls, batch, colors)
        loss = self._real_or_fake(*logits.chunk(2))
        total, terms = loss.total, loss.terms
        if colors.requires_grad:
            squares = squared_gradient_norm(logits, colors).chunk(2)
            for (name, weight), each in zip(weights.items(), squares, strict=True):
                terms[name] = each.mean()
                total = total + weight / 2 * terms[name]
        return dataclasses.replace(loss, total=total, terms=terms)

    def _real_or_fake(self, real: Tensor, fake: Tensor) -> Loss:
        """Discriminator's adversarial loss. real, fake: logits."""
        if self.settings.adversarial == "relativistic":
            loss = relativistic(real, fake)
            accuracy = (real > fake).mean(dtype=real.dtype)
            return Loss(loss, {"relativistic": loss}, diagnostics={"accuracy": accuracy})
        return discriminator_bce(real, fake, self.settings.label_smoothing)

    def _generator_loss(self, calls: Calls, batch: Batch, color: Tensor, *, adversarial: bool) -> Loss:
        settings = self.settings
        best = best_by_region(settings.pixel, color, batch)
        terms: dict[str, Tensor] = {settings.pixel: pixel_distance(settings.pixel, best, batch.target)}
        total = settings.pixel_weight * terms[settings.pixel]
        if settings.gradient_loss_weight > 0:
            terms["gradient_difference"] = gradient_difference_loss(settings.pixel, best, batch.target)
            total = total + settings.gradient_loss_weight * terms["gradient_difference"]
        if settings.feature_weight > 0:
            terms["feature"] = feature_loss(calls, self.color_space, batch, best)
            total = total + settings.feature_weight * terms["feature"]
        if adversarial:
            terms["adversarial"] = self._adversarial_loss(calls, batch, first_candidate(color, batch))
            total = total + settings.adversarial_weight * terms["adversarial"]
        return Loss(total, terms)

    def _adversarial_loss(self, calls: Calls, batch: Batch, fake: Tensor) -> Tensor:
        """Generator's adversarial loss."""
        logits = self._discriminate(calls, batch, fake)
        if self.settings.adversarial == "relativistic":
            with torch.no_grad():
                real = self._discriminate(calls, batch, batch.target)
            return relativistic(logits, real)
        return bce(logits, 1)  # non-saturating loss (Goodfellow et al. 2014)

    def _discriminate(self, calls: Calls, batch: Batch, colors: Tensor) -> Tensor:
        """Discriminator's logits for B colour images, or for 2B: real and fake colours of the batch's grey images.

        Real and fake colours of an image get the same augmentation, as the relativistic loss compares their patches.
        """
        grey, uniforms = batch.grey, batch.uniforms
        if len(colors) > len(batch):
            grey, uniforms = torch.cat([grey, grey]), torch.cat([uniforms, uniforms])
        return calls["discriminator"](*augment(self.settings.augment, grey, colors, uniforms))
