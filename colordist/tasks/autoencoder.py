"""Task ``autoencoder``: regression of colours by a pixel loss."""

from dataclasses import dataclass

from torch import Tensor

from colordist.data.batch import Batch
from colordist.tasks.base import Calls, Loss, Task
from colordist.tasks.candidates import CandidateSettings, best_by_region, generate_candidates
from colordist.tasks.losses import pixel_distance


@dataclass(frozen=True, kw_only=True)
class AutoencoderSettings(CandidateSettings):
    """Settings of the task ``autoencoder``."""


class AutoencoderTask(Task):
    """One network, one loss. Where several colours are plausible the optimum is their mean (l2) or median (l1): dull.

    With several candidates per image only the closest is penalised, so each may be one of those colours.
    """

    Settings = AutoencoderSettings
    settings: AutoencoderSettings
    description = "with a pixel loss between predicted and true colours"

    @property
    def candidates(self) -> int:
        """Candidates per training image."""
        return self.settings.candidates

    def generate(self, calls: Calls, batch: Batch) -> Tensor:
        """Predict colours from grey: [B * candidates, C, H, W]."""
        return generate_candidates(calls["generator"], batch)

    def loss(self, phase: str, calls: Calls, batch: Batch, color: Tensor, step: int) -> Loss:
        """Pixel loss between the closest candidate and the target."""
        pixel = self.settings.pixel
        distance = pixel_distance(pixel, best_by_region(pixel, color, batch), batch.target)
        return Loss(distance, {pixel: distance})
