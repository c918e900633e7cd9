"""Scores of colourized images, with floors and a ceiling to set them beside. Table order."""

from colordist.metrics.accuracy import ACCURACY2, ACCURACY5
from colordist.metrics.ciede2000 import CIEDE2000
from colordist.metrics.classifier import FRECHET_OWN, KERNEL_OWN, NAMED_OWN
from colordist.metrics.colorfulness import COLORFULNESS, COLORFULNESS_GAP
from colordist.metrics.diversity import DIVERSITY
from colordist.metrics.histogram import HISTOGRAM
from colordist.metrics.inception import FID, KID
from colordist.metrics.lpips import LPIPS
from colordist.metrics.mae import MAE
from colordist.metrics.metric import EvalBatch, Metric, MetricSpec
from colordist.metrics.psnr import PSNR, PSNR_SET
from colordist.metrics.scorer import Scorer
from colordist.metrics.ssim import SSIM
from colordist.metrics.vivid import RAREST, VIVID

METRICS: tuple[Metric, ...] = (
    MAE,
    PSNR,
    PSNR_SET,
    SSIM,
    ACCURACY2,
    ACCURACY5,
    CIEDE2000,
    HISTOGRAM,
    COLORFULNESS,
    COLORFULNESS_GAP,
    VIVID,
    RAREST,
    DIVERSITY,
)
"""What is always scored, in the order of tables."""

METRIC_SPECS: tuple[MetricSpec, ...] = (*METRICS, FRECHET_OWN, KERNEL_OWN, NAMED_OWN, FID, KID, LPIPS)
"""All that may be scored, in the order of tables."""

__all__ = ["METRIC_SPECS", "METRICS", "MetricSpec", "Metric", "EvalBatch", "Scorer"]
