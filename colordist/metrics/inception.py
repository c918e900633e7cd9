"""FID and KID, as everybody reports them: by the Inception network of 2015 (extra package: torch-fidelity)."""

import torch
from torch import Tensor

from colordist.metrics.features import FeatureScores, distances
from colordist.metrics.fetched import fetched
from colordist.metrics.metric import MetricSpec

FID = MetricSpec("fid", "FID", "lower", digits=2)
"""Fréchet distance between Inception's features (Heusel et al. 2017) of the answers and of the same images' truth."""

KID = MetricSpec("kid", "KID x1000", "lower", digits=3)
"""Kernel distance between the same, times 1000."""

WIDTH = 2048


def inception_scores(device: torch.device) -> FeatureScores:
    """FID and KID. torch-fidelity's network scales images to 299x299, bilinearly, as TensorFlow 1 did.

    Raises UserError where the package or the weights can't be had.
    """
    with fetched("inception", "torch-fidelity"):
        from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3
    with fetched("inception", "torch-fidelity", URL_INCEPTION_V3):
        network = FeatureExtractorInceptionV3("inception", [str(WIDTH)]).to(device)

    @torch.no_grad()
    def features(rgb: Tensor) -> Tensor:
        seen: Tensor = network(rgb)[0]
        return seen

    return FeatureScores(
        "inception", (FID, KID), WIDTH, features, lambda answers, target, _: distances(answers, target)
    )
