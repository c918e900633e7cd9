"""Metric ``inception``: FID and KID by the Inception network of 2015, as usually reported (torch-fidelity)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from colordist.extras import needs_extra
from colordist.metrics.features import FeatureScores, distances
from colordist.metrics.fetched import fetched
from colordist.metrics.metric import EvalSet
from colordist.metrics.specs import MetricSpec

FID = MetricSpec("fid", "FID", "lower", digits=2)
"""Fréchet distance between Inception features (Heusel et al. 2017) of predictions and of their targets."""

KID = MetricSpec("kid", "KID x1000", "lower", digits=3)
"""Kernel distance between the same, times 1000."""

WIDTH = 2048


class InceptionMetric:
    """FID and KID. torch-fidelity's network scales images to 299x299, bilinearly, as TensorFlow 1 did."""

    @dataclass(frozen=True, kw_only=True)
    class Settings:
        """None."""

    def __init__(self, settings: Settings, eval_set: EvalSet) -> None:
        """Raises UserError where the package is missing or the weights can't be loaded."""
        with needs_extra("metrics", "evaluate.metrics: inception"):
            from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3
        with fetched("inception", URL_INCEPTION_V3):
            network = FeatureExtractorInceptionV3("inception", [str(WIDTH)]).to(eval_set.device)

        @torch.no_grad()
        def features(rgb: Tensor) -> Tensor:
            found: Tensor = network(rgb)[0]
            return found

        self.metrics = [FeatureScores("inception", (FID, KID), WIDTH, features, distances)]
