"""Metric ``classifier``: scores by a custom classifier, one trained with ``python -m colordist.classifier``.

Comparable only between runs that were scored by the same classifier.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from colordist.config import UserError
from colordist.metrics import classifier_file
from colordist.metrics.features import FeatureScores, distances
from colordist.metrics.metric import EvalSet
from colordist.metrics.specs import MetricSpec
from colordist.models.classifier import FEATURES, Classifier, scaled

CLASSIFIER_FRECHET = MetricSpec("classifier_frechet", "Fréchet (custom classifier)", "lower", digits=3)
"""Fréchet distance between the features of predictions and of the same images' targets: 0 for the target itself."""

CLASSIFIER_KERNEL = MetricSpec("classifier_kernel", "Kernel x1000 (custom classifier)", "lower", digits=3)
"""Kernel distance between the same, times 1000."""

CLASSIFIER_ACCURACY = MetricSpec("classifier_accuracy", "Accuracy % (custom classifier)", "higher", digits=1)
"""Percent of predictions that are classified correctly; as Palette's classification accuracy (arXiv 2111.05826)."""


class ClassifierMetric:
    """Fréchet and kernel distance, and accuracy where the classifier knows all classes of the source."""

    @dataclass(frozen=True, kw_only=True)
    class Settings:
        """Which classifier."""

        folder: str
        """Folder of the classifier (`python -m colordist.classifier`); the same for all runs to compare."""

    def __init__(self, settings: Settings, eval_set: EvalSet) -> None:
        """Raises UserError for a folder without a classifier, or one trained at another image size."""
        folder = Path(settings.folder).expanduser()
        classifier, about, digest = classifier_file.read(folder)
        if about.image_size != eval_set.image_size:
            raise UserError(
                f"evaluate.metrics: the classifier in {folder} takes images of {about.image_size} pixels, but "
                f"data.image_size is {eval_set.image_size}: train another with python -m colordist.classifier "
                f"--data.image_size {eval_set.image_size}"
            )
        wanted = _class_indices(about.classes, eval_set)
        self.metrics = [_feature_scores(classifier.to(eval_set.device), wanted, f"classifier {digest[:8]}")]


def _class_indices(known: Sequence[str], eval_set: EvalSet) -> Tensor | None:
    """The classifier's index of each test image's class: int64 [N]; None without labels, or with an unknown class."""
    if eval_set.labels is None or not set(eval_set.classes) <= set(known):
        return None
    return torch.tensor([known.index(name) for name in eval_set.classes])[eval_set.labels]


def _feature_scores(classifier: Classifier, wanted: Tensor | None, network: str) -> FeatureScores:
    weight, bias = classifier.head.weight.detach().cpu().double(), classifier.head.bias.detach().cpu().double()

    @torch.no_grad()
    def features(rgb: Tensor) -> Tensor:
        return classifier.features(scaled(rgb))

    def scores(prediction: Tensor, target: Tensor, indices: Tensor) -> Sequence[float]:
        found = distances(prediction, target)
        if wanted is None:
            return found
        right = (prediction @ weight.T + bias).argmax(dim=1) == wanted[indices]
        return *found, 100 * float(right.double().mean())

    specs = (CLASSIFIER_FRECHET, CLASSIFIER_KERNEL)
    return FeatureScores(
        network, specs if wanted is None else (*specs, CLASSIFIER_ACCURACY), FEATURES, features, scores
    )
