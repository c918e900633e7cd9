"""Scores by a classifier that the project trains itself. They are not to be compared with anybody else's."""

from collections.abc import Sequence

import torch
from torch import Tensor

from colordist.data.source import Labels
from colordist.metrics.features import FeatureScores, distances
from colordist.metrics.metric import MetricSpec
from colordist.models.classifier import FEATURES, Classifier, scaled

FRECHET_OWN = MetricSpec("frechet_own", "Fréchet (own classifier)", "lower", digits=3)
"""Fréchet distance between the features of the answers and of the same images' truth: 0 for the truth itself."""

KERNEL_OWN = MetricSpec("kernel_own", "Kernel x1000 (own classifier)", "lower", digits=3)
"""Kernel distance between the same, times 1000."""

NAMED_OWN = MetricSpec("named_own", "Named % (own classifier)", "higher", digits=1)
"""Percent of the answers whose class it names; as Palette's classification accuracy (arXiv 2111.05826)."""


def classifier_scores(
    classifier: Classifier, known: Sequence[str], labels: Labels | None, network: str
) -> FeatureScores:
    """What a classifier says of answers.

    classifier: on the device of the answers. known: the classes that it tells apart. labels: the source's. Where that
    has none, or a class that the classifier doesn't know, answers aren't named. network: what stands for it.
    """
    wanted = None
    if labels is not None and set(labels.classes) <= set(known):
        wanted = torch.tensor([known.index(name) for name in labels.classes])[torch.from_numpy(labels.test)]
    weight, bias = classifier.head.weight.detach().cpu().double(), classifier.head.bias.detach().cpu().double()

    @torch.no_grad()
    def features(rgb: Tensor) -> Tensor:
        return classifier.features(scaled(rgb))

    def scores(answers: Tensor, target: Tensor, places: Tensor) -> Sequence[float]:
        found = distances(answers, target)
        if wanted is None:
            return found
        right = (answers @ weight.T + bias).argmax(dim=1) == wanted[places]
        return *found, 100 * float(right.double().mean())

    specs = (FRECHET_OWN, KERNEL_OWN) if wanted is None else (FRECHET_OWN, KERNEL_OWN, NAMED_OWN)
    return FeatureScores(network, specs, FEATURES, features, scores)
