"""Peak signal-to-noise ratio, with its two averages: they differ by several dB, so each has its name."""

import torch
from torch import Tensor

from colordist.metrics.metric import EvalBatch, Metric, mean_over_images, ratio

HIGHEST = 100.0  # dB; of a prediction without any error, in place of infinity


def _squared_errors(eval_batch: EvalBatch) -> Tensor:
    """Sum of squared differences of each image, in levels of 255. Exact: int64 [B]."""
    difference = eval_batch.prediction.int() - eval_batch.target.int()
    return (difference * difference).flatten(1).sum(dim=1).cpu()


def _decibels(mse: Tensor) -> Tensor:
    """PSNR in dB of a mean squared error in levels of 255, at most HIGHEST."""
    return (10 * torch.log10(255**2 / mse)).clamp(max=HIGHEST)


def _per_image(eval_batch: EvalBatch) -> Tensor:
    return _decibels(_squared_errors(eval_batch).double() / eval_batch.target[0].numel())


def _set_sums(eval_batch: EvalBatch) -> Tensor:
    values = torch.tensor(float(eval_batch.target.numel()), dtype=torch.float64)
    return torch.stack([_squared_errors(eval_batch).double().sum(), values])


def _set_score(sums: Tensor) -> float:
    return float(_decibels(torch.tensor(ratio(sums), dtype=torch.float64)))


PSNR = mean_over_images("psnr", "PSNR dB", "higher", _per_image)
"""Mean over images of each image's PSNR over R, G, B, in dB; an image counts at most 100 dB."""

PSNR_SET = Metric("psnr_set", "PSNR of set dB", "higher", 2, _set_sums, _set_score)
"""PSNR of the mean squared error over all pixels of all images, in dB; at most 100 dB."""
