"""Comparison of programs by their answers to the same photographs."""

import dataclasses
from dataclasses import dataclass
from itertools import combinations

from colordist.evaluation.referee import Judgement
from colordist.metrics.specs import MetricSpec
from colordist.metrics.table import beside_references
from colordist.reporting.groups import Group
from colordist.reporting.score_rows import Row, rows
from colordist.reporting.spread import Difference, paired_difference
from colordist.reporting.verdict import Verdict, alone, leads


@dataclass(frozen=True)
class PairedDifference:
    """Difference of two programs by the primary metric over the same photographs."""

    better: str
    """The program with the better mean."""
    worse: str
    difference: Difference
    """The worse one's scores minus the better one's."""


@dataclass(frozen=True)
class Programs:
    """How programs compare."""

    judgement: Judgement
    ranked: list[str]
    """Programs by the primary metric, the best first."""
    differences: list[PairedDifference]
    """Of each two programs, in the order of ``ranked``."""

    @property
    def table(self) -> str:
        """Format the scores between baselines and oracle."""
        return beside_references(self.judgement.specs, self.judgement.references, self.judgement.scores)

    @property
    def rows(self) -> list[Row]:
        """Scores of the programs, one row per metric; that of the primary metric with paired intervals."""
        scores = self.judgement.scores

        def of(metric: str) -> list[list[float]]:
            return [[each[metric]] if metric in each else [] for each in scores.values()]

        found = rows(of, self.judgement.specs, self.judgement.references)
        to_best = {each.worse: each.difference for each in self.differences if each.better == self.ranked[0]}
        for row in found:
            if row.metric.name == self._primary.name:
                row.cells[:] = [
                    cell and (dataclasses.replace(cell, to_best=to_best[name]) if name in to_best else cell)
                    for name, cell in zip(scores, row.cells, strict=True)
                ]
        return found

    @property
    def verdict(self) -> Verdict:
        """A line on each two programs, on the other metrics, and on what isn't scored."""
        found, groups = self.rows, [Group(name, ()) for name in self.judgement.scores]
        notes = []
        if left_out := len(self.judgement.left_out):
            notes.append(f"Without any colour, and so not scored: {left_out} of the photographs.")
        if len(groups) == 1:
            row = next(each for each in found if each.metric.name == self._primary.name)
            (cell,) = row.cells
            assert cell is not None  # the primary metric is scored on every photograph
            return Verdict(alone(groups[0], cell, row), [], notes)
        first, *others = (self._line(each) for each in self.differences)
        compared, best = [row for row in found if row.metric.is_compared], self.ranked[0]
        return Verdict(first, [*others, *leads(best, [*self.judgement.scores].index(best), compared)], notes)

    @property
    def _primary(self) -> MetricSpec:
        return self.judgement.specs.primary

    def _line(self, pair: PairedDifference) -> str:
        """Whether one program is better than another one."""
        metric, scores = self._primary, self.judgement.scores
        means = " against ".join(metric.format(scores[name][metric.name]) for name in (pair.better, pair.worse))
        found, by = pair.difference, metric.format(abs(pair.difference.mean))
        if found.mean == 0:
            return f"{pair.better} and {pair.worse} are equal by {metric.label}: {means}."
        if found.margin is None:
            return f"{pair.better} scores better than {pair.worse} by {metric.label}: {means}. That may be chance."
        by = f"{by} ± {metric.format(found.margin)}"
        if found.is_clear:
            return f"{pair.better} beats {pair.worse} by {metric.label}: {means}, a difference of {by}."
        return f"Not decided between {pair.better} and {pair.worse}: {metric.label} {means}; the difference is {by}."


def compare_programs(judgement: Judgement) -> Programs:
    """Rank programs by the primary metric, and compare each two of them on the same photographs."""
    metric = judgement.specs.primary
    target = next((judgement.references[each.name] for each in judgement.specs.of_role("target")), {})
    ranked = sorted(
        judgement.scores,
        key=lambda name: metric.cost(judgement.scores[name][metric.name], target.get(metric.name, 0.0)),
    )
    pairs = [*combinations(ranked, 2)]
    return Programs(judgement, ranked, [_difference(*pair, judgement, len(pairs)) for pair in pairs])


def _difference(better: str, worse: str, judgement: Judgement, comparisons: int) -> PairedDifference:
    ours, theirs = (judgement.per_image[name] for name in (better, worse))
    return PairedDifference(better, worse, paired_difference(theirs, ours, comparisons))
