"""Interfaces of metrics, and their input.

A metric of one's own is a class with a ``Settings`` dataclass, registered under a name and chosen by
``evaluate.metrics``::

    @register("metric", "saturation")
    class SaturationMetric:
        @dataclass(frozen=True, kw_only=True)
        class Settings:
            limit: float = 0.5

        def __init__(self, settings: Settings, eval_set: EvalSet) -> None:
            self.metrics = [mean_over_images("saturation", "Saturation", "target", per_image)]
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch
from torch import Tensor

from colordist.color import srgb_to_lab
from colordist.metrics.specs import Better, MetricRole, MetricSpec

if TYPE_CHECKING:
    from colordist.metrics.features import FeatureScores

Colors = tuple[tuple[float, float], ...]
"""Colours as pairs of Lab a and b."""


def precision(device: torch.device) -> torch.dtype:
    """The dtype of metrics: float64, except on Apple's GPUs, which have none (float32).

    In float32 the last bits of an image's score would depend on the batch it came in.
    """
    return torch.float32 if device.type == "mps" else torch.float64


@dataclass(frozen=True)
class EvalBatch:
    """A batch of predictions beside their targets.

    prediction, target: uint8 [B, 3, H, W], sRGB: what files would hold, so scores are those after 8-bit rounding and
    gamut clipping. objects: uint8 [B, H, W], the number of the ambiguous object at each pixel (0: none); None where
    the source marks no objects. variants: uint8 [B, V, 3, H, W], several predictions for each image, ``prediction``
    the first; None where there is only one.
    """

    prediction: Tensor
    target: Tensor
    objects: Tensor | None = None
    variants: Tensor | None = None

    def __post_init__(self) -> None:
        if self.prediction.dtype != torch.uint8 or self.target.dtype != torch.uint8:
            raise ValueError(f"images must be uint8, not {self.prediction.dtype} and {self.target.dtype}")
        if self.prediction.shape != self.target.shape:
            raise ValueError(f"prediction {[*self.prediction.shape]} and target {[*self.target.shape]} differ in shape")

    @cached_property
    def lab(self) -> tuple[Tensor, Tensor]:
        """CIE Lab of prediction and target, each [B, 3, H, W]: computed once for all metrics that need it."""
        return rgb_to_lab(self.prediction), rgb_to_lab(self.target)

    @cached_property
    def lab_of_variants(self) -> list[Tensor]:
        """CIE Lab of all predictions, each [B, 3, H, W], the first of each image at the start."""
        others = [] if self.variants is None else self.variants[:, 1:].unbind(dim=1)
        return [self.lab[0], *map(rgb_to_lab, others)]

    def colored(self) -> "EvalBatch":
        """Images whose target has any colour; those with R = G = B everywhere are left out."""
        keep = has_color(self.target)
        if keep.all():
            return self
        objects, variants = (None if each is None else each[keep] for each in (self.objects, self.variants))
        return EvalBatch(self.prediction[keep], self.target[keep], objects, variants)


@dataclass(frozen=True)
class Metric(MetricSpec):
    """A score of a set of predictions, computed from sums over images.

    The sums of batches are added, over batches and over processes, and only then turned into a score. So the score
    is the same for any batch size and any number of processes.
    """

    size: int
    """How many sums there are."""
    sums: Callable[[EvalBatch], Tensor]
    """The sums over a batch: float64 [size], on the CPU."""
    score: Callable[[Tensor], float]
    """From the sums over the whole test split to the score; nan when nothing was counted."""

    @property
    def specs(self) -> Sequence[MetricSpec]:
        """One score."""
        return (self,)


@dataclass(frozen=True, eq=False)
class EvalSet:
    """Test split, as known to a metric before it sees images."""

    image_size: int | None
    """Width and height in pixels; None where images differ in size."""
    device: torch.device
    """Where the images are."""
    ambiguous_colors: Colors = ()
    """Colours that an ambiguous object may have; empty where the source marks no objects."""
    trained_with: frozenset[str] = frozenset()
    """Names of the timm models whose weights the training of the network used."""


class MetricComponent(Protocol):
    """A metric that ``evaluate.metrics`` names. Made by ``Class(settings, eval_set)``."""

    Settings: ClassVar[type[Any]]
    """Frozen dataclass of its settings. Raises UserError for values out of range."""
    metrics: "Sequence[Metric | FeatureScores]"
    """Scores from sums over images, or from features of all images."""


def has_color(rgb: Tensor) -> Tensor:
    """Whether each image has any pixel but R = G = B: uint8 [B, 3, H, W] to bool [B]."""
    red, green, blue = rgb.unbind(1)
    return ((red != green) | (green != blue)).flatten(1).any(dim=1)


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """CIE Lab of uint8 sRGB, in the dtype of metrics. [..., 3, H, W] to [..., 3, H, W]."""
    return srgb_to_lab(rgb.to(precision(rgb.device)) / 255)


def mean_over_pixels(values: Tensor) -> Tensor:
    """Mean of each image, row by row: torch splits one long sum among threads, whose number would change the last bit.

    values: [B, ..., H, W]. Returns [B].
    """
    return values.flatten(1, -2).mean(dim=-1).mean(dim=-1)


def ratio(sums: Tensor) -> float:
    """The first sum divided by the second; nan when the second is zero."""
    return float(sums[0] / sums[1])


def mean_over_images(
    name: str,
    label: str,
    better: Better,
    per_image: Callable[[EvalBatch], Tensor],
    digits: int = 2,
    role: MetricRole = "comparison",
) -> Metric:
    """A metric that is the mean of one value per image.

    per_image: from a batch to [B], any float or integer dtype; a shorter answer leaves images out.
    """

    def sums(eval_batch: EvalBatch) -> Tensor:
        values = per_image(eval_batch).cpu().double()
        return torch.stack([values.sum(), torch.tensor(float(len(values)), dtype=torch.float64)])

    return Metric(name, label, better, 2, sums, ratio, digits=digits, role=role)
