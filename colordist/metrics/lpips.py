"""Metric ``lpips``: the perceptual distance LPIPS (package torchmetrics)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from colordist.extras import needs_extra
from colordist.metrics.fetched import fetched
from colordist.metrics.metric import EvalBatch, EvalSet, mean_over_images
from colordist.metrics.specs import MetricSpec

LPIPS = MetricSpec("lpips", "LPIPS", "lower", digits=4)
"""Mean over images of the distance of Zhang et al. 2018 (arXiv 1801.03924) to the target: AlexNet, version 0.1."""

MIN_SIZE = 64
"""Smaller images are scaled to this width and height, bilinearly: AlexNet needs at least 63 pixels."""


class LPIPSMetric:
    """LPIPS by AlexNet."""

    @dataclass(frozen=True, kw_only=True)
    class Settings:
        """None."""

    def __init__(self, settings: Settings, eval_set: EvalSet) -> None:
        """Raises UserError where the package is missing or AlexNet's weights can't be loaded."""
        with needs_extra("metrics", "evaluate.metrics: lpips"):
            from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
        from torchvision.models import AlexNet_Weights

        with fetched("lpips", AlexNet_Weights.IMAGENET1K_V1.url):
            network = LearnedPerceptualImagePatchSimilarity("alex").net.to(eval_set.device)

        @torch.no_grad()
        def per_image(eval_batch: EvalBatch) -> Tensor:
            distance: Tensor = network(_scaled(eval_batch.prediction), _scaled(eval_batch.target))
            return distance.flatten()

        self.metrics = [mean_over_images(LPIPS.name, LPIPS.label, LPIPS.better, per_image, LPIPS.digits)]


def _scaled(rgb: Tensor) -> Tensor:
    """Network input: uint8 [B, 3, H, W] to [-1, 1], as float32, at least MIN_SIZE pixels wide and high."""
    scaled = rgb.float() / 127.5 - 1
    if min(scaled.shape[-2:]) >= MIN_SIZE:
        return scaled
    return F.interpolate(scaled, (MIN_SIZE, MIN_SIZE), mode="bilinear", align_corners=False)
