"""Confidence intervals of differences: between two sets of seeds, and between scores of the same images."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """A difference of means."""

    mean: float
    margin: float | None
    """Half the width of the confidence interval; None where it is unknown, as with a single seed."""

    @property
    def is_clear(self) -> bool:
        """Whether the confidence interval excludes zero."""
        return self.margin is not None and abs(self.mean) > self.margin


def difference(ours: Sequence[float], theirs: Sequence[float], comparisons: int = 1) -> Difference:
    """Difference of the means, with Welch's confidence interval (Biometrika 34, 1947).

    comparisons: made at once, by which the error probability is divided (Bonferroni). With fewer than two values on
    either side, or no variance on both, the margin is unknown.
    """
    mean = fmean(ours) - fmean(theirs)
    if min(len(ours), len(theirs)) < 2:
        return Difference(mean, None)
    shares = [variance(values) / len(values) for values in (ours, theirs)]
    if sum(shares) == 0:
        return Difference(mean, None)
    sizes = [len(values) - 1 for values in (ours, theirs)]
    freedom = sum(shares) ** 2 / sum(share**2 / size for share, size in zip(shares, sizes, strict=True))
    factor = student_quantile(1 - (1 - CONFIDENCE) / comparisons, max(1, math.floor(freedom)))
    return Difference(mean, factor * math.sqrt(sum(shares)))


def paired_difference(ours: Sequence[float], theirs: Sequence[float], comparisons: int = 1) -> Difference:
    """Mean of the differences of pairs, with Student's confidence interval (Biometrika 6, 1908).

    comparisons: as in ``difference``. With fewer than two pairs, or all differences the same, the margin is unknown.
    """
    differences = [one - other for one, other in zip(ours, theirs, strict=True)]
    mean, freedom = fmean(differences), len(differences) - 1
    if freedom < 1 or (spread := variance(differences)) == 0:
        return Difference(mean, None)
    factor = student_quantile(1 - (1 - CONFIDENCE) / comparisons, freedom)
    return Difference(mean, factor * math.sqrt(spread / len(differences)))


def student_quantile(share: float, freedom: int) -> float:
    """Two-sided quantile t of Student's distribution. share: between -t and t, in (0, 1); freedom: at least 1."""
    low, high = 0.0, 1.0
    while student_share(high, freedom) < share:
        low, high = high, 2 * high
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if student_share(middle, freedom) < share else (low, middle)
    return high


def student_share(t: float, freedom: int) -> float:
    """Probability of [-t, t] under Student's distribution (Abramowitz, Stegun 1964, 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine, total, term = math.cos(angle), 0.0, 1.0
    if freedom % 2:
        term = math.cos(angle)
        for step in range(1, freedom - 1, 2):
            total += term
            term *= cosine**2 * (step + 1) / (step + 2)
        return 2 / math.pi * (angle + math.sin(angle) * total)
    for step in range(0, freedom - 1, 2):
        total += term
        term *= cosine**2 * (step + 1) / (step + 2)
    return math.sin(angle) * total
