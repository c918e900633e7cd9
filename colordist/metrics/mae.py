"""Mean absolute error."""

from torch import Tensor

from colordist.metrics.metric import EvalBatch, mean_over_images


def _per_image(eval_batch: EvalBatch) -> Tensor:
    difference = (eval_batch.prediction.int() - eval_batch.target.int()).abs()
    return difference.flatten(1).sum(dim=1).cpu().double() * 100 / (255 * difference[0].numel())


MAE = mean_over_images("mae", "MAE %", "lower", _per_image)
"""Mean over images, pixels and R, G, B of |prediction - target| / 255, in percent (Nazeri et al. 2018)."""
