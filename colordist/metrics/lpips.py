"""The perceptual distance LPIPS (extra package: torchmetrics)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from colordist.metrics.fetched import fetched
from colordist.metrics.metric import EvalBatch, Metric, MetricSpec, mean_over_images

LPIPS = MetricSpec("lpips", "LPIPS", "lower", digits=4)
"""Mean over images of the distance of Zhang et al. 2018 (arXiv 1801.03924) to the truth: AlexNet, version 0.1."""

LEAST = 64
"""Smaller images are scaled to this width and height, bilinearly: AlexNet can't see less than 63 pixels."""


def lpips(device: torch.device) -> Metric:
    """LPIPS. Raises UserError where the package or AlexNet's weights can't be had."""
    with fetched("lpips", "torchmetrics"):
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
    from torchvision.models import AlexNet_Weights

    with fetched("lpips", "torchmetrics", AlexNet_Weights.IMAGENET1K_V1.url):
        network = LearnedPerceptualImagePatchSimilarity("alex").net.to(device)

    @torch.no_grad()
    def per_image(eval_batch: EvalBatch) -> Tensor:
        distance: Tensor = network(_scaled(eval_batch.prediction), _scaled(eval_batch.target))
        return distance.flatten()

    return mean_over_images(LPIPS.name, LPIPS.label, LPIPS.better, per_image, LPIPS.digits)


def _scaled(rgb: Tensor) -> Tensor:
    """What the network takes: uint8 [B, 3, H, W] to [-1, 1], as float32, at least LEAST pixels wide and high."""
    scaled = rgb.float() / 127.5 - 1
    if min(scaled.shape[-2:]) >= LEAST:
        return scaled
    return F.interpolate(scaled, (LEAST, LEAST), mode="bilinear", align_corners=False)
