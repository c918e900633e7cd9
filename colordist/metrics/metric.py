"""What a metric is, and what it looks at."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from colordist.color import srgb_to_lab


def precision(device: torch.device) -> torch.dtype:
    """The dtype to measure in: float64, except on Apple's GPUs, which have none (float32).

    In float32 the last bits of an image's score would depend on the batch it came in.
    """
    return torch.float32 if device.type == "mps" else torch.float64


@dataclass(frozen=True)
class EvalBatch:
    """A batch of answers beside the truth.

    prediction, truth: uint8 [B, 3, H, W], sRGB: what files would hold, so scores are those after 8-bit rounding and
    gamut clipping. objects: uint8 [B, H, W], the number of the ambiguous object at each pixel (0: none); None where
    the source marks no objects. variants: uint8 [B, V, 3, H, W], several answers to each image, prediction the first;
    None where there is only one.
    """

    prediction: Tensor
    target: Tensor
    objects: Tensor | None = None
    variants: Tensor | None = None

    def __post_init__(self) -> None:
        if self.prediction.dtype != torch.uint8 or self.target.dtype != torch.uint8:
            raise ValueError(f"pictures must be uint8, not {self.prediction.dtype} and {self.target.dtype}")
        if self.prediction.shape != self.target.shape:
            raise ValueError(f"answers {[*self.prediction.shape]} and truth {[*self.target.shape]} differ in shape")

    @cached_property
    def lab(self) -> tuple[Tensor, Tensor]:
        """CIE Lab of prediction and truth, each [B, 3, H, W]: computed once for all metrics that need it."""
        return rgb_to_lab(self.prediction), rgb_to_lab(self.target)

    @cached_property
    def lab_of_answers(self) -> list[Tensor]:
        """CIE Lab of all answers, each [B, 3, H, W], the prediction's first."""
        others = [] if self.variants is None else self.variants[:, 1:].unbind(dim=1)
        return [self.lab[0], *map(rgb_to_lab, others)]

    def colored(self) -> "EvalBatch":
        """Only the pictures whose truth has any colour: images with R = G = B everywhere are left out."""
        red, green, blue = self.target.unbind(1)
        keep = ((red != green) | (green != blue)).flatten(1).any(dim=1)
        if keep.all():
            return self
        objects, variants = (None if each is None else each[keep] for each in (self.objects, self.variants))
        return EvalBatch(self.prediction[keep], self.target[keep], objects, variants)


@dataclass(frozen=True)
class MetricSpec:
    """What tables say of a score."""

    name: str
    """Key in files, e.g. ``ciede2000``."""
    label: str
    """Heading in tables, e.g. ``CIEDE2000``."""
    better: Literal["lower", "higher", "truth"]
    """``truth``: the nearer to the score of the true images, the better."""
    digits: int = field(default=2, kw_only=True)
    """Decimals worth printing."""


@dataclass(frozen=True)
class Metric(MetricSpec):
    """A number that says how good a set of answers is.

    The sums of batches are added, over batches and over processes, and only then turned into a score. So the score
    is the same for any batch size and any number of processes.
    """

    size: int
    """How many sums there are."""
    sums: Callable[[EvalBatch], Tensor]
    """The sums over a batch: float64 [size], on the CPU."""
    score: Callable[[Tensor], float]
    """From the sums over the whole test split to the score; nan when nothing was counted."""


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """CIE Lab of uint8 sRGB, at the precision to measure in. [..., 3, H, W] to [..., 3, H, W]."""
    return srgb_to_lab(rgb.to(precision(rgb.device)) / 255)


def ratio(sums: Tensor) -> float:
    """The first sum divided by the second; nan when the second is zero."""
    return float(sums[0] / sums[1])


def mean_over_images(
    name: str,
    label: str,
    better: Literal["lower", "higher", "truth"],
    per_image: Callable[[EvalBatch], Tensor],
    digits: int = 2,
) -> Metric:
    """A metric that is the mean of one value per image.

    per_image: from pictures to [B], any float or integer dtype; a shorter answer leaves images out.
    """

    def sums(eval_batch: EvalBatch) -> Tensor:
        values = per_image(eval_batch).cpu().double()
        return torch.stack([values.sum(), torch.tensor(float(len(values)), dtype=torch.float64)])

    return Metric(name, label, better, 2, sums, ratio, digits=digits)
