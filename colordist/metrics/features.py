"""Scores of a whole set of answers, by what a network sees in each image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from colordist.metrics.frechet import frechet
from colordist.metrics.kernel import kernel_distance
from colordist.metrics.metric import MetricSpec


@dataclass(frozen=True)
class FeatureScores:
    """Compares the features of all answers with those of the true images: not image by image, but as two crowds.

    An image's features are a row of numbers. Rows of all processes are put together, in the order of the images, and
    each process computes the same scores from them.
    """

    network: str
    """What stands for the network: scores of another one are not to be compared with these."""
    specs: Sequence[MetricSpec]
    """Of the scores."""
    width: int
    """How many numbers the network makes of an image."""
    features: Callable[[Tensor], Tensor]
    """From uint8 [B, 3, H, W] to [B, width], any float dtype."""
    scores: Callable[[Tensor, Tensor, Tensor], Sequence[float]]
    """One score a heading; nan where there is none. From the answers' features, the truth's ([N, width] each, float64)
    and the images' places in the test split (int64 [N])."""


def distances(answers: Tensor, target: Tensor) -> tuple[float, float]:
    """Fréchet and kernel distance, the latter times 1000 as is usual. [N, D] each, float64, on the CPU.

    On one thread: on how many a process has depends the last bit.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return frechet(answers, target), 1000 * kernel_distance(answers, target)
    finally:
        torch.set_num_threads(threads)
