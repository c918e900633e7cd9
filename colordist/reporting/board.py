"""Scores of groups of runs, between floors and ceiling: which is best, and by how much."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from colordist.config import UserError
from colordist.metrics import METRIC_SPECS, MetricSpec
from colordist.metrics.baselines import REFERENCES
from colordist.reporting.groups import Group
from colordist.reporting.runs import Run
from colordist.reporting.spread import Difference, difference

BASELINES = tuple(each for each in REFERENCES if each.label.startswith("floor"))
LIMITS = tuple(each for each in REFERENCES if each not in BASELINES)
"""The ceiling and the truth."""

References = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Cell:
    """A group's scores by one metric."""

    scores: list[float]
    """One a seed."""
    is_best: bool
    """Its mean is the best one of several groups'."""
    is_below_baseline: bool
    """Its mean is no better than the best floor: than an answer that needs no network."""
    to_best: Difference | None
    """Its mean less the best group's; in `truth` metrics, of the distances to the truth. None for the best itself."""

    @property
    def mean(self) -> float:
        """Over seeds."""
        return fmean(self.scores)


@dataclass(frozen=True)
class Row:
    """All scores by one metric."""

    metric: MetricSpec
    references: dict[str, float]
    """By the reference's name."""
    cells: list[Cell | None]
    """One a group; None where it has no such score."""

    def loss(self, score: float) -> float:
        """How far from the best possible: the lower, the better, whatever the metric."""
        return loss(self.metric, score, self.references)

    @property
    def baseline(self) -> float | None:
        """The better floor's score."""
        baselines = [self.references[each.name] for each in BASELINES if each.name in self.references]
        return min(baselines, key=self.loss, default=None)


def board(groups: Sequence[Group]) -> list[Row]:
    """A row for each metric that a group has a score for, in the order of tables."""
    references = common_references([run for group in groups for run in group.runs])
    return [
        _row(metric, groups, references)
        for metric in METRIC_SPECS
        if any(group.scores(metric.name) for group in groups)
    ]


def common_references(runs: Sequence[Run]) -> References:
    """The floors' and the ceiling's scores. Raises UserError for runs that were scored on different images."""
    first: Run | None = None
    found: References = {}
    for run in runs:
        if not run.references:
            continue
        if first is None:
            first = run
        elif not alike(first.references, run.references):
            one, other = first.folder.path, run.folder.path
            raise UserError(
                f"{one} and {other} were scored on different images, or by other classifiers: they can't be compared"
            )
        found = {name: found.get(name, {}) | scores for name, scores in run.references.items()}
    return found


def alike(one: References, other: References) -> bool:
    """Whether two sets of references are of the same images: on another device the last digits may differ.

    One of them may have been scored by more metrics.
    """
    flat, flat_other = (
        {(name, metric): score for name, scores in each.items() for metric, score in scores.items()}
        for each in (one, other)
    )
    shared = flat.keys() & flat_other.keys()
    return bool(shared) and all(math.isclose(flat[key], flat_other[key], rel_tol=1e-4, abs_tol=1e-6) for key in shared)


def loss(metric: MetricSpec, score: float, references: dict[str, float]) -> float:
    """A score turned so that lower is better. references: this metric's, by the reference's name."""
    match metric.better:
        case "lower":
            return score
        case "higher":
            return -score
        case "truth":
            return abs(score - references.get("truth", math.nan))


def _row(metric: MetricSpec, groups: Sequence[Group], references: References) -> Row:
    limits = {name: scores[metric.name] for name, scores in references.items() if metric.name in scores}
    row = Row(metric, limits, [])
    scores = [group.scores(metric.name) for group in groups]
    losses = [[row.loss(score) for score in each] for each in scores]
    means = [fmean(each) for each in losses if each]
    best, compared = min(means), len(means) - 1
    best_losses = next(each for each in losses if each and fmean(each) == best)
    sign = -1 if metric.better == "higher" else 1
    for each, mine in zip(scores, losses, strict=True):
        if not each:
            row.cells.append(None)
            continue
        is_best = fmean(mine) == best and compared > 0
        found = None if is_best or compared == 0 else difference(mine, best_losses, compared)
        row.cells.append(
            Cell(
                scores=each,
                is_best=is_best,
                is_below_baseline=row.baseline is not None and fmean(mine) >= row.loss(row.baseline),
                to_best=found and Difference(sign * found.mean, found.margin),
            )
        )
    return row
