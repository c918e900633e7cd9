"""Share of correct pixels, after Nazeri et al. 2018."""

from torch import Tensor

from colordist.metrics.metric import EvalBatch, Metric, mean_over_images


def _accuracy(percent: int) -> Metric:
    def per_image(eval_batch: EvalBatch) -> Tensor:
        prediction, target = eval_batch.lab
        lightness, a, b = (prediction.round() - target.round()).abs().unbind(1)
        right = (lightness <= percent) & (a <= 2.2 * percent) & (b <= 2.2 * percent)
        return right.flatten(1).sum(dim=1).cpu().double() * 100 / right[0].numel()

    return mean_over_images(f"accuracy{percent}", f"Acc@{percent} %", "higher", per_image)


ACCURACY2 = _accuracy(2)
"""Percent of pixels within 2 of the target's L and 4.4 of its a and b, each rounded to an integer first."""

ACCURACY5 = _accuracy(5)
"""Percent of pixels within 5 of the target's L and 11 of its a and b, each rounded to an integer first."""
