"""The kernel distance between two sets of features, and its bootstrap interval."""

import math

import torch
from torch import Tensor

MOST = 5000
"""Most images that are compared, each with every other one."""
RESAMPLES = 1000
"""Bootstrap resamples."""
_ROWS = 500  # compared at once
_TAILS = torch.tensor([0.025, 0.975], dtype=torch.float64)


def kernel_distance(one: Tensor, other: Tensor) -> float:
    """Squared maximum mean discrepancy with the kernel (x.y / D + 1)^3: Binkowski et al. 2018, arXiv 1801.01401 (KID).

    Estimated from all pairs i != j of the two sets, row i of both being the same image (Gretton et al. 2012, JMLR 13,
    eq. 4). Leaving out the pairs (x_i, y_i), too, keeps it unbiased where those belong together, and makes it
    exactly 0 for equal sets. Slightly below 0 by chance where the sets hardly differ.

    Of more than MOST rows, MOST are taken, evenly spaced, not at random.

    one, other: [N, D] each, float64. nan for fewer than two rows.
    """
    one, other = _at_most(one), _at_most(other)
    return float(_weighted(one, other, one.new_ones(1, len(one))))


def kernel_interval(one: Tensor, other: Tensor) -> tuple[float, float, float]:
    """The kernel distance and the ends of its 95 % interval, by the bootstrap (Efron 1979): percentiles of resamples.

    Images are resampled, with their row in both sets, by the same random numbers for the same N. Pairs of an image and
    its own copy are left out: they would pull each resample's distance away from the distance of the images.

    one, other: [N, D] each, float64. nan for fewer than two rows.
    """
    one, other = _at_most(one), _at_most(other)
    if len(one) < 2:
        return math.nan, math.nan, math.nan
    counts = torch.cat([one.new_ones(1, len(one)), resamples(len(one)).to(one)])
    found = _weighted(one, other, counts)
    low, high = torch.nanquantile(found[1:], _TAILS.to(found)).tolist()  # nan: a single image, N times
    return float(found[0]), low, high


def resamples(images: int) -> Tensor:
    """How often each image is drawn: RESAMPLES times ``images`` draws with replacement. float64 [RESAMPLES, images]."""
    drawn = torch.randint(images, (RESAMPLES, images), generator=torch.Generator().manual_seed(0))
    counts = torch.zeros(RESAMPLES, images, dtype=torch.float64)
    return counts.scatter_add_(1, drawn, torch.ones_like(counts))


def _at_most(rows: Tensor) -> Tensor:
    """MOST rows, evenly spaced; all of them if there are fewer."""
    return rows[torch.arange(MOST, device=rows.device) * len(rows) // MOST] if len(rows) > MOST else rows


def _weighted(one: Tensor, other: Tensor, counts: Tensor) -> Tensor:
    """Kernel distance of sets in which row i occurs counts[i] times: [N, D] twice and [R, N], to [R].

    sum c_i c_j h_ij / sum c_i c_j over i != j, with h_ij = k(x_i, x_j) + k(y_i, y_j) - 2 k(x_i, y_j).
    """
    total = counts.new_zeros(len(counts))
    for start in range(0, len(one), _ROWS):
        rows = slice(start, start + _ROWS)
        x, y = one[rows], other[rows]
        difference = _kernel(x, one) + _kernel(y, other) - 2 * _kernel(x, other)
        difference.diagonal(start).zero_()
        total += ((counts @ difference.T) * counts[:, rows]).sum(dim=1)
    pairs: Tensor = counts.sum(dim=1).square() - counts.square().sum(dim=1)
    return total / pairs


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    """Of each row with each: [N, D], [M, D] to [N, M]."""
    return (x @ y.T / x.shape[1] + 1) ** 3
