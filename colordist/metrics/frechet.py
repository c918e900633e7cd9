"""The Fréchet distance between two sets of features."""

import math

import torch
from torch import Tensor


def frechet(one: Tensor, other: Tensor) -> float:
    """Squared Fréchet distance between the normal distributions with the means and covariances of two sets.

    Heusel et al. 2017, arXiv 1706.08500: |m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)). With C = F^T F and C' = G^T G the
    trace of the last root is the sum of the singular values of F G^T, whichever F and G: so no root is taken of an
    asymmetric matrix, and singular covariances do no harm.

    one, other: [N, D] and [M, D], float64. nan for fewer than two rows.
    """
    if min(len(one), len(other)) < 2:
        return math.nan
    factor, other_factor = _factor(one), _factor(other)
    shift = (one.mean(dim=0) - other.mean(dim=0)).square().sum()
    traces = factor.square().sum() + other_factor.square().sum()
    common = torch.linalg.svdvals(factor @ other_factor.T).sum()
    return max(0.0, float(shift + traces - 2 * common))


def _factor(rows: Tensor) -> Tensor:
    """F of the covariance F^T F. [N, D] to [min(N, D), D]."""
    triangle: Tensor = torch.linalg.qr(rows - rows.mean(dim=0), mode="r").R
    return triangle / math.sqrt(len(rows) - 1)
