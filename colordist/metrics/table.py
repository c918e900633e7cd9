"""Scores as text tables."""

import math
from collections.abc import Callable, Mapping, Sequence

from colordist.metrics.specs import MetricSpec, ScoreSpecs

Scores = Mapping[str, float]
"""By the metric's name."""


def table(columns: Mapping[str, Scores], metrics: Sequence[MetricSpec]) -> str:
    """Format scores as an aligned table: one line per metric, one column per run or reference; "-" without a score.

    columns: from an answer's label to its scores. Arrows show the better direction.
    """
    lines = _lines(columns, metrics)
    first, *others = (max(map(len, column)) for column in zip(*lines, strict=True))
    return "\n".join(
        "  ".join([label.ljust(first), *(cell.rjust(width) for cell, width in zip(cells, others, strict=True))])
        for label, *cells in lines
    )


def markdown(columns: Mapping[str, Scores], metrics: Sequence[MetricSpec]) -> str:
    """The same as a table in Markdown."""
    head, *lines = _lines(columns, metrics)
    rule = ["---", *["---:" for _ in columns]]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *lines))


def beside_references(
    specs: ScoreSpecs,
    references: Mapping[str, Scores],
    answers: Mapping[str, Scores],
    form: Callable[[Mapping[str, Scores], Sequence[MetricSpec]], str] = table,
) -> str:
    """A table of scores between those of the baselines and those of the oracle and the target.

    references: by name; answers: by label. Metrics that no answer has a score for are left out.
    """
    baselines = {each.label: references.get(each.name, {}) for each in specs.of_role("baseline")}
    limits = {each.label: references.get(each.name, {}) for each in specs.of_role("oracle", "target")}
    shown = [metric for metric in specs.metrics if any(metric.name in scores for scores in answers.values())]
    return form({**baselines, **answers, **limits}, shown)


def _lines(columns: Mapping[str, Scores], metrics: Sequence[MetricSpec]) -> list[list[str]]:
    lines = [["", *columns]]
    for metric in metrics:
        cells = [metric.format(scores.get(metric.name, math.nan)) for scores in columns.values()]
        suffix = " target" if metric.better == "target" else ""
        lines.append([f"{metric.label} {metric.arrow}{suffix}", *cells])
    return lines
