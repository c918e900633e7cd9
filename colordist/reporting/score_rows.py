"""Scores of groups of runs beside baselines and oracle: which is best, and by how much."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from colordist.errors import UserError
from colordist.metrics.specs import MetricSpec, ScoreSpecs
from colordist.reporting.groups import Group
from colordist.reporting.runs import Run
from colordist.reporting.spread import Difference, difference
from colordist.run.records import References


@dataclass(frozen=True)
class Cell:
    """Scores of one group by one metric."""

    scores: list[float]
    """One score per seed."""
    is_best: bool
    """Whether its mean is the best of several groups."""
    is_below_baseline: bool
    """Whether its mean is no better than the best baseline; False for diagnostic metrics."""
    to_best: Difference | None
    """Difference to the best group's mean, of distances to the target for metrics with one; None for the best group."""

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return fmean(self.scores)


@dataclass(frozen=True)
class Row:
    """Scores of all groups by one metric."""

    metric: MetricSpec
    references: dict[str, float]
    """Scores of baselines and oracle, by name."""
    baseline: float | None
    """Score of the best baseline."""
    limit: float | None
    """Best possible score: the oracle's, or the ground truth's for metrics with a target."""
    target: float
    """Score of the ground truth; nan if unknown."""
    cells: list[Cell | None]
    """One per group; None for a group without this score."""

    def cost(self, score: float) -> float:
        """Sort key of a score: lower is better for every metric."""
        return self.metric.cost(score, self.target)


def score_rows(groups: Sequence[Group], specs: ScoreSpecs, references: References) -> list[Row]:
    """Build a row for each metric that any group has, in table order."""
    return rows(lambda metric: [group.scores(metric) for group in groups], specs, references)


def rows(scores: Callable[[str], list[list[float]]], specs: ScoreSpecs, references: References) -> list[Row]:
    """Build a row for each metric with any score, in table order.

    scores: by the metric's name, one list for each of what is compared; empty without a score.
    """
    return [_row(metric, found, references, specs) for metric in specs.metrics if any(found := scores(metric.name))]


def common_specs(runs: Sequence[Run]) -> ScoreSpecs:
    """Merge the score specs of all runs."""
    specs = runs[0].specs
    for run in runs[1:]:
        specs = specs.merged(run.specs)
    return specs


def common_references(runs: Sequence[Run]) -> References:
    """Scores of baselines and oracle that all runs share. Raises UserError for runs with different test images."""
    first: Run | None = None
    found: dict[str, dict[str, float]] = {}
    for run in runs:
        if not run.references:
            continue
        if first is None:
            first = run
        elif not _alike(first.references, run.references):
            one, other = first.folder.path, run.folder.path
            raise UserError(
                f"{one} and {other} were scored on different images or by different feature networks: not comparable"
            )
        found = {name: found.get(name, {}) | scores for name, scores in run.references.items()}
    return found


def _alike(one: References, other: References) -> bool:
    """Whether two sets of references are of the same images; the last digits may differ between devices.

    One of them may have been scored by more metrics.
    """
    flat, flat_other = (
        {(name, metric): score for name, scores in each.items() for metric, score in scores.items()}
        for each in (one, other)
    )
    shared = flat.keys() & flat_other.keys()
    return bool(shared) and all(math.isclose(flat[key], flat_other[key], rel_tol=1e-4, abs_tol=1e-6) for key in shared)


def _row(metric: MetricSpec, scores: list[list[float]], references: References, specs: ScoreSpecs) -> Row:
    known = {name: scores[metric.name] for name, scores in references.items() if metric.name in scores}
    target = next((known[each.name] for each in specs.of_role("target") if each.name in known), math.nan)
    baselines = [known[each.name] for each in specs.of_role("baseline") if each.name in known]
    baseline = min(baselines, key=lambda score: metric.cost(score, target), default=None)
    limit = specs.best(metric)
    row = Row(metric, known, baseline, known.get(limit.name) if limit else None, target, [])
    costs = [[row.cost(score) for score in each] for each in scores]
    means = [fmean(each) for each in costs if each]
    best, compared = min(means), len(means) - 1
    best_costs = next(each for each in costs if each and fmean(each) == best)
    sign = -1 if metric.better == "higher" else 1
    for each, mine in zip(scores, costs, strict=True):
        if not each:
            row.cells.append(None)
            continue
        is_best = fmean(mine) == best and compared > 0 and metric.role != "bound"
        found = None if is_best or compared == 0 or metric.role == "bound" else difference(mine, best_costs, compared)
        row.cells.append(
            Cell(
                scores=each,
                is_best=is_best,
                is_below_baseline=metric.is_compared and baseline is not None and fmean(mine) >= row.cost(baseline),
                to_best=found and Difference(sign * found.mean, found.margin),
            )
        )
    return row
