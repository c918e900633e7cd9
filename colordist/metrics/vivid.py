"""Does a network choose a colour, or answer with an average?"""

import torch
from torch import Tensor

from colordist.data.ambiguous import AMBIGUOUS_AB
from colordist.metrics.metric import Metric, Pictures, ratio


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
    there = count > 0
    return torch.stack([a[there], b[there]], dim=1) / count[there].unsqueeze(1)


def vivid(colors: tuple[tuple[float, float], ...]) -> Metric:
    """Share of ambiguous objects, in percent, whose answer is one of the colours that they may have.

    Such an object has one of `colors` (pairs of a and b), and grey does not tell which. It counts as vivid when the
    mean a,b of the answer over its pixels is nearer to one of `colors` than to what an average would give: their
    mean (least squares), their channel-wise median (least absolute error) and grey. Which of the colours is not asked.
    """
    choices = torch.tensor(colors, dtype=torch.float64)
    averages = torch.stack([choices.mean(dim=0), choices.quantile(0.5, dim=0), torch.zeros(2, dtype=torch.float64)])

    def sums(pictures: Pictures) -> Tensor:
        if pictures.objects is None:
            return torch.zeros(2, dtype=torch.float64)
        answers = _mean_ab(pictures.lab[0], pictures.objects)
        to_choice, to_average = (
            (answers.unsqueeze(1) - points).norm(dim=2).amin(dim=1) for points in (choices, averages)
        )
        return torch.tensor([int((to_choice < to_average).sum()), len(answers)], dtype=torch.float64)

    return Metric("vivid", "Vivid %", "higher", 2, sums, lambda total: 100 * ratio(total))


VIVID = vivid(AMBIGUOUS_AB)
"""For sources that mark ambiguous objects: `synthetic`."""
