"""Task ``autoencoder``: regression of colours by a pixel loss."""

from dataclasses import dataclass

from torch import Tensor

from colordist.data.batch import Batch
from colordist.tasks.base import Calls, Loss, Task
from colordist.tasks.candidates import CandidateSettings, best_candidate, generate_candidates
from colordist.tasks.losses import pixel_distance


@dataclass(frozen=True, kw_only=True)
class AutoencoderSettings(CandidateSettings):
    """Settings of the task ``autoencoder``."""


class AutoencoderTask(Task):
    """One network, one loss. Where several colours are equally likely the optimum is their mean or median: dull.

    With several candidates per image only the closest counts, so each may be one of those colours.
    """

    Settings = AutoencoderSettings
    settings: AutoencoderSettings
    description = "by a pixel loss, to answer with colours near the true ones"

    @property
    def candidates(self) -> int:
        """How many answers the generator gives to each training image."""
        return self.settings.candidates

    def generate(self, calls: Calls, batch: Batch) -> Tensor:
        """Colours from grey: [B * candidates, C, H, W]."""
        return generate_candidates(calls["generator"], batch)

    def loss(self, phase: str, calls: Calls, batch: Batch, color: Tensor, step: int) -> Loss:
        """Pixel loss between the closest candidate and the target."""
        pixel = self.settings.pixel
        distance = pixel_distance(pixel, best_candidate(pixel, color, batch), batch.target)
        return Loss(distance, {pixel: distance})
