"""The kernel distance between two sets of features."""

import math

import torch
from torch import Tensor

MOST = 5000
"""Most images that are compared, each with every other one."""
_ROWS = 500  # compared at once


def kernel_distance(one: Tensor, other: Tensor) -> float:
    """Squared maximum mean discrepancy with the kernel (x.y / D + 1)^3: Binkowski et al. 2018, arXiv 1801.01401 (KID).

    Estimated from all pairs i != j of the two sets, row i of both being the same image (Gretton et al. 2012, JMLR 13,
    eq. 4). Leaving out the pairs (x_i, y_i), too, keeps it unbiased where those belong together, and makes it
    exactly 0 for equal sets. Slightly below 0 by chance where the sets hardly differ.

    Of more than MOST rows, MOST are taken, evenly spaced, not at random.

    one, other: [N, D] each, float64. nan for fewer than two rows.
    """
    if len(one) < 2:
        return math.nan
    if len(one) > MOST:
        chosen = torch.arange(MOST, device=one.device) * len(one) // MOST
        one, other = one[chosen], other[chosen]
    total = torch.zeros((), dtype=one.dtype, device=one.device)
    for x, y in zip(one.split(_ROWS), other.split(_ROWS), strict=True):
        total += _kernel(x, one).sum() + _kernel(y, other).sum() - 2 * _kernel(x, other).sum()
    paired = _paired(one, one) + _paired(other, other) - 2 * _paired(one, other)
    return float((total - paired.sum()) / (len(one) * (len(one) - 1)))


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    """Of each row with each: [N, D], [M, D] to [N, M]."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def _paired(x: Tensor, y: Tensor) -> Tensor:
    """Of each row with the one at the same index: [N, D] twice, to [N]."""
    return ((x * y).sum(dim=1) / x.shape[1] + 1) ** 3
