"""Ambiguous objects: is a prediction one of the possible colours or their average, and are all of them used?"""

import math

import torch
from torch import Tensor

from colordist.metrics.metric import Colors, EvalBatch, Metric, ratio
from colordist.metrics.specs import MetricSpec

VIVID = MetricSpec("vivid", "Vivid %", "higher")
"""Share of ambiguous objects that got one of their possible colours."""

RAREST = MetricSpec("rarest", "Rarest colour %", "higher")
"""Share of the least frequent of these colours. Scenes of the ``synthetic`` source have 1/3 each; of the quickstart's
841 objects, drawn four times, the rarest has 32.3 %."""


def _mean_ab(lab: Tensor, objects: Tensor) -> Tensor:
    """Mean a,b over each object of each image. lab [B, 3, H, W], objects [B, H, W] to float64 [N, 2] on the CPU."""
    per_image = 256  # object numbers are uint8
    image = torch.arange(len(objects)).view(-1, 1, 1)
    index = (image * per_image + objects.cpu().long()).flatten()
    a, b = lab[:, 1:].cpu().double().unbind(1)
    count, a, b = (
        torch.bincount(index, weights, minlength=len(objects) * per_image).view(-1, per_image)[:, 1:]
        for weights in (None, a.flatten(), b.flatten())
    )
    present = count > 0
    return torch.stack([a[present], b[present]], dim=1) / count[present].unsqueeze(1)


def _counts(eval_batch: EvalBatch, colors: Colors) -> Tensor:
    """Over all predictions, the ambiguous objects nearest to each of the colours, and to an average: [colours + 1]."""
    choices = torch.tensor(colors, dtype=torch.float64)
    averages = torch.stack([choices.mean(dim=0), choices.quantile(0.5, dim=0), torch.zeros(2, dtype=torch.float64)])
    if eval_batch.objects is None:
        return torch.zeros(len(colors) + 1, dtype=torch.float64)
    means = torch.cat([_mean_ab(lab, eval_batch.objects) for lab in eval_batch.lab_of_variants])
    to_choice, to_average = ((means.unsqueeze(1) - points).norm(dim=2) for points in (choices, averages))
    nearest, which = to_choice.min(dim=1)
    which[nearest >= to_average.amin(dim=1)] = len(colors)
    return torch.bincount(which, minlength=len(colors) + 1).double()


def vivid(colors: Colors) -> Metric:
    """Share of ambiguous objects, in percent, whose predicted colour is one of their possible colours.

    Such an object has one of `colors`, all equally likely, and grey does not tell which. It counts as vivid when the
    mean a,b of the prediction over its pixels is nearer to one of `colors` than to what an average would give: their
    mean (least squares), their channel-wise median (least absolute error) and grey. Which of the colours does not
    matter. Where there are several predictions for an image, all of them count.
    """

    def sums(eval_batch: EvalBatch) -> Tensor:
        counts = _counts(eval_batch, colors)
        return torch.stack([counts[:-1].sum(), counts.sum()])

    return Metric(VIVID.name, VIVID.label, VIVID.better, 2, sums, lambda total: 100 * ratio(total))


def rarest(colors: Colors) -> Metric:
    """Share of the least frequent colour, in percent of the vivid objects over several predictions for each image.

    Measures mode collapse: 100 divided by the number of colours is ideal and the target's score (33.3 for three); 0
    says that one of them never comes. A network with one prediction per image has no such score.
    """

    def sums(eval_batch: EvalBatch) -> Tensor:
        counts = _counts(eval_batch, colors)[:-1]
        return counts if eval_batch.variants is not None else torch.zeros_like(counts)

    def score(counts: Tensor) -> float:
        return float(100 * counts.min() / counts.sum()) if counts.sum() > 0 else math.nan

    return Metric(RAREST.name, RAREST.label, RAREST.better, len(colors), sums, score)
