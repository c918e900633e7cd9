"""The kernel distance between two sets of features."""

import math

import torch
from torch import Tensor

MOST = 5000
"""How many images are compared at most, each with each other one."""
_ROWS = 500  # compared at once


def kernel_distance(one: Tensor, other: Tensor) -> float:
    """Squared maximum mean discrepancy with the kernel (x.y / D + 1)^3: Binkowski et al. 2018, arXiv 1801.01401 (KID).

    Estimated from all pairs i != j of the two sets, row i of both being the same image (Gretton et al. 2012, JMLR 13,
    eq. 4). Leaving out the pairs (x_i, y_i), too, keeps it without bias where those belong together, and makes it
    exactly 0 for equal sets. Below 0 by chance, where the sets hardly differ.

    Of more than MOST rows, MOST are taken, evenly spaced: no subset is drawn by chance.

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
    own = _own(one, one) + _own(other, other) - 2 * _own(one, other)
    return float((total - own.sum()) / (len(one) * (len(one) - 1)))


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    """Of each row with each: [N, D], [M, D] to [N, M]."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def _own(x: Tensor, y: Tensor) -> Tensor:
    """Of each row with the one in the same place: [N, D] twice, to [N]."""
    return ((x * y).sum(dim=1) / x.shape[1] + 1) ** 3
