"""What another package may add: a generator, an iterative task, a source and a metric, without editing colordist.

Offered twice: by the entry points in ``colordist_extension-1.0.dist-info``, and by ``--import`` of
``colordist_extension_registered``.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from colordist.config import DataConfig, GeneratorSettings, TaskSettings
from colordist.data.batch import Batch
from colordist.data.source import ArraySplit, ImageSource, Source
from colordist.metrics.metric import EvalBatch, EvalSet, mean_over_images
from colordist.models.factory import ModelFactory
from colordist.ranges import at_least
from colordist.tasks.base import Calls, Loss, NetworkSpec, Task


@dataclass(frozen=True, kw_only=True)
class PointwiseSettings(GeneratorSettings):
    """Settings of the generator ``pointwise``."""

    hidden: int = 8
    """Hidden channels."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("model.hidden", self.hidden, 1)


class Pointwise(nn.Module):
    """A perceptron at each pixel."""

    Settings = PointwiseSettings

    def __init__(self, settings: PointwiseSettings, *, inputs: int = 1, outputs: int = 2) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, settings.hidden, 1), nn.SiLU(), nn.Conv2d(settings.hidden, outputs, 1)
        )

    def forward(self, image: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H, W]."""
        color: Tensor = self.layers(image)
        return color


@dataclass(frozen=True, kw_only=True)
class RefineSettings(TaskSettings):
    """Settings of the task ``refine``."""

    iterations: int = 3
    """Passes of the generator over its own result."""


class RefineTask(Task):
    """Colours by iteration: the generator corrects what it has so far."""

    Settings = RefineSettings
    description = "by the task `refine`, to correct its own colours"

    def build_sampled(self, factory: ModelFactory) -> dict[str, NetworkSpec]:
        """A generator that sees grey and colours."""
        return {"generator": NetworkSpec(factory.generator(inputs=1 + self.color_space.channels), ema=True)}

    def generate(self, calls: Calls, batch: Batch) -> Tensor:
        """Colours from grey: [B, C, H, W]."""
        return self.sample(calls, batch.grey, None)

    def loss(self, phase: str, calls: Calls, batch: Batch, color: Tensor, step: int) -> Loss:
        """Charbonnier loss."""
        loss = ((color - batch.target).square() + 1e-6).sqrt().mean()
        return Loss(loss, {"charbonnier": loss})

    def sample(self, networks: Calls, grey: Tensor, noise: Tensor | None, hints: Tensor | None = None) -> Tensor:
        """Start from grey, and correct it some times."""
        color = torch.zeros_like(grey).repeat(1, self.color_space.channels, 1, 1)
        for _ in range(self.settings.iterations):
            color = color + networks["generator"](torch.cat([grey, color], dim=1))
        return color


@dataclass(frozen=True, kw_only=True)
class StripesSettings(DataConfig):
    """Settings of the source ``stripes``."""

    images: int = 24
    """How many."""


class StripesSource(ImageSource):
    """Stripes in one colour each, which follows from their brightness."""

    Settings = StripesSettings
    description = "stripes"

    def open(self) -> Source:
        """Paint them."""
        size, count = self.settings.image_size, self.settings.images
        brightness = np.linspace(40, 200, count).astype(np.uint8)
        images: NDArray[np.uint8] = np.zeros((count, size, size, 3), np.uint8)
        images[:, :, ::2, 0] = brightness[:, None, None]
        images[:, :, 1::2, 2] = brightness[:, None, None]
        return Source("stripes", ArraySplit(images[4:]), ArraySplit(images[:4]), digest=f"{count} stripes")


@dataclass(frozen=True, kw_only=True)
class RednessSettings:
    """Settings of the metric ``redness``."""

    above: float = 0.0
    """Lab a that counts as none."""


class RednessMetric:
    """Mean Lab a above a threshold."""

    Settings = RednessSettings

    def __init__(self, settings: RednessSettings, eval_set: EvalSet) -> None:
        def per_image(eval_batch: EvalBatch) -> Tensor:
            return (eval_batch.lab[0][:, 1] - settings.above).clamp(min=0).mean(dim=(1, 2))

        self.metrics = [mean_over_images("redness", "Redness", "target", per_image)]
