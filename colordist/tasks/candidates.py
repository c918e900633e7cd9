"""Best-of-N: several candidates per image, one per noise vector, of which only the closest is penalised."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from colordist.config import Config, GeneratorSettings, TaskSettings
from colordist.data.batch import Batch
from colordist.errors import UserError
from colordist.ranges import at_least

_REGIONS = 4  # per side of an image


@dataclass(frozen=True, kw_only=True)
class CandidateSettings(TaskSettings):
    """Settings of a task with a pixel loss, optionally best-of-N."""

    pixel: Literal["l1", "l2"] = "l1"
    """Pixel loss: `l1` (mean absolute error) or `l2` (mean squared error)."""
    candidates: int = 1
    """Best-of-N: candidates per image, of which only the closest to the target is penalised (arXiv 1806.07772)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("task.candidates", self.candidates, 1, 1024)

    def check(self, config: Config) -> None:
        """Raise UserError for several candidates without noise."""
        super().check(config)
        if self.candidates > 1 and config.model.noise_size == 0:
            takes_noise = type(config.model).noise_size is not GeneratorSettings.noise_size
            way_out = (
                "try model.noise 6" if takes_noise else "try task.candidates 1, or model.name unet --model.noise 6"
            )
            without = "without noise" if takes_noise else f"model.name {config.model.name} takes no noise, so"
            raise UserError(f"task.candidates is {self.candidates}, but {without} all candidates are equal: {way_out}")


def generate_candidates(generator: Callable[..., Tensor], batch: Batch) -> Tensor:
    """Run a generator once, with all noise vectors of a batch: [B * N, C, H, W], N = 1 without noise.

    The candidates of an image are consecutive.
    """
    if batch.noise.numel() == 0:
        return generator(batch.inputs)
    return generator(batch.inputs, batch.noise.flatten(0, 1))


def first_candidate(color: Tensor, batch: Batch) -> Tensor:
    """The first candidate of each image, an unbiased sample: [B * N, C, H, W] -> [B, C, H, W]."""
    return color if len(color) == len(batch) else _by_image(color, batch)[:, 0]


def best_by_region(kind: Literal["l1", "l2"], color: Tensor, batch: Batch) -> Tensor:
    """The candidate closest to the target in each region: [B * N, C, H, W] -> [B, C, H, W].

    Best-of-N loss (Guzman-Rivera et al. 2012; Bhattacharyya et al. 2018, arXiv 1806.07772): only the closest sample is
    penalised, so the others may cover other modes. Per region, as the colours of an image's objects are independent.
    """
    if len(color) == len(batch):
        return color
    candidates = _by_image(color, batch)
    with torch.no_grad():
        error = candidates - batch.target.unsqueeze(1)
        error = (error.abs() if kind == "l1" else error.square()).mean(dim=2)  # [B, N, H, W]
        distance = F.adaptive_avg_pool2d(error, min(_REGIONS, *error.shape[-2:]))
        numbers = torch.arange(candidates.shape[1], device=color.device).view(1, -1, 1, 1)
        mask = (numbers == distance.argmin(dim=1, keepdim=True)).to(color.dtype)
        mask = F.interpolate(mask, error.shape[-2:], mode="nearest")
    # A masked sum: the gradient of indexing isn't deterministic on GPUs.
    return (candidates * mask.unsqueeze(2)).sum(dim=1)


def _by_image(color: Tensor, batch: Batch) -> Tensor:
    """[B * N, C, H, W] -> [B, N, C, H, W]."""
    return color.view(len(batch), -1, *color.shape[1:])
