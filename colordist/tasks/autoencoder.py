"""Task ``autoencoder``: regression of colours by a pixel loss, optionally with a feature loss."""

from dataclasses import dataclass

from torch import Tensor

from colordist.data.batch import Batch
from colordist.models.factory import ModelFactory
from colordist.tasks.base import Calls, Loss, NetworkSpec, Task
from colordist.tasks.candidates import CandidateSettings, best_by_region, generate_candidates
from colordist.tasks.feature_loss import FeatureLossSettings, feature_loss, feature_networks
from colordist.tasks.hints import HintSettings
from colordist.tasks.losses import pixel_distance


@dataclass(frozen=True, kw_only=True)
class AutoencoderSettings(CandidateSettings, HintSettings, FeatureLossSettings):
    """Settings of the task ``autoencoder``."""


class AutoencoderTask(Task):
    """One network, one loss. Where several colours are plausible the optimum is their mean (l2) or median (l1): dull.

    With several candidates per image only the closest is penalised, so each may be one of those colours.
    """

    Settings = AutoencoderSettings
    settings: AutoencoderSettings
    description = "with a pixel loss between predicted and true colours"

    def build(self, factory: ModelFactory) -> dict[str, NetworkSpec]:
        """Generator."""
        self.frozen = feature_networks(self.settings)
        return super().build(factory)

    @property
    def candidates(self) -> int:
        """Candidates per training image."""
        return self.settings.candidates

    def generate(self, calls: Calls, batch: Batch) -> Tensor:
        """Predict colours from grey: [B * candidates, C, H, W]."""
        return generate_candidates(calls["generator"], batch)

    def loss(self, phase: str, calls: Calls, batch: Batch, color: Tensor, step: int) -> Loss:
        """Pixel loss, and feature loss, between the closest candidate and the target."""
        pixel = self.settings.pixel
        best = best_by_region(pixel, color, batch)
        total = pixel_distance(pixel, best, batch.target)
        terms: dict[str, Tensor] = {pixel: total}
        if self.settings.feature_weight > 0:
            terms["feature"] = feature_loss(calls, self.color_space, batch, best)
            total = total + self.settings.feature_weight * terms["feature"]
        return Loss(total, terms)
