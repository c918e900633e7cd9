"""Scores of colourized images, and references to compare them with: baselines, oracle, ground truth."""

from colordist.metrics.accuracy import ACCURACY2, ACCURACY5
from colordist.metrics.baselines import REFERENCES
from colordist.metrics.ciede2000 import CIEDE2000
from colordist.metrics.colorfulness import COLORFULNESS, COLORFULNESS_GAP
from colordist.metrics.histogram import HISTOGRAM
from colordist.metrics.inception import FID, KID
from colordist.metrics.lpips import LPIPS
from colordist.metrics.mae import MAE
from colordist.metrics.metric import EvalBatch, Metric
from colordist.metrics.psnr import PSNR, PSNR_SET
from colordist.metrics.removed import REMOVED
from colordist.metrics.scorer import Scorer
from colordist.metrics.specs import MetricSpec, score_specs
from colordist.metrics.ssim import SSIM
from colordist.metrics.variants import CIEDE2000_BEST, CIEDE2000_MEAN, DIVERSITY
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
    CIEDE2000_MEAN,
    CIEDE2000_BEST,
    DIVERSITY,
)
"""Scored on every test split, in the order of tables."""

SPECS = score_specs((*METRICS, VIVID, RAREST, *REMOVED, FID, KID, LPIPS), REFERENCES)
"""Specs of all built-in scores, for runs without specs of their own."""

__all__ = ["METRICS", "REFERENCES", "SPECS", "EvalBatch", "Metric", "MetricSpec", "Scorer"]
