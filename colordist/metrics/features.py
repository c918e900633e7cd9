"""Scores of a whole set of predictions, by the features that a network computes of each image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from colordist.metrics.frechet import frechet
from colordist.metrics.kernel import kernel_distance, kernel_interval
from colordist.metrics.specs import MetricSpec
from colordist.threads import single_thread


@dataclass(frozen=True)
class FeatureScores:
    """Compares the distribution of the predictions' features with that of the targets'.

    The features of all processes are gathered, in the order of the images, and each process computes the same scores
    from them.
    """

    network: str
    """Identifies the network and its weights: scores by another one are not comparable."""
    specs: Sequence[MetricSpec]
    """Of the scores."""
    width: int
    """Features per image."""
    features: Callable[[Tensor], Tensor]
    """From uint8 [B, 3, H, W] to [B, width], any float dtype."""
    scores: Callable[[Tensor, Tensor], Sequence[float]]
    """One score per spec; nan if undefined. From the features of predictions and targets: [N, width] each, float64."""


def distances(prediction: Tensor, target: Tensor) -> tuple[float, float]:
    """Fréchet and kernel distance, the latter times 1000 as is usual. [N, D] each, float64, on the CPU."""
    with single_thread():  # the last bit depends on their number
        return frechet(prediction, target), 1000 * kernel_distance(prediction, target)


def distances_and_interval(prediction: Tensor, target: Tensor) -> tuple[float, float, float, float]:
    """The same, and both ends of the kernel distance's 95 % interval, times 1000."""
    with single_thread():  # the last bit depends on their number
        kernel, low, high = kernel_interval(prediction, target)
        return frechet(prediction, target), 1000 * kernel, 1000 * low, 1000 * high
