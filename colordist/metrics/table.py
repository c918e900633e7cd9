"""Scores as plain text."""

import math
from collections.abc import Mapping, Sequence

from colordist.metrics.metric import MetricSpec

_ARROWS = {"lower": "↓", "higher": "↑", "truth": "→ truth"}


def _cell(metric: MetricSpec, score: float) -> str:
    return "-" if math.isnan(score) else f"{score:.{metric.digits}f}"


def table(columns: Mapping[str, Mapping[str, float]], metrics: Sequence[MetricSpec]) -> str:
    """Lay scores out in an aligned table: one line per metric, one column per answer; "-" where there is no score.

    columns: from an answer's label to its scores by the metrics' names. Arrows show the better way.
    """
    lines = _lines(columns, metrics)
    first, *others = (max(map(len, column)) for column in zip(*lines, strict=True))
    return "\n".join(
        "  ".join([label.ljust(first), *(cell.rjust(width) for cell, width in zip(cells, others, strict=True))])
        for label, *cells in lines
    )


def markdown(columns: Mapping[str, Mapping[str, float]], metrics: Sequence[MetricSpec]) -> str:
    """The same as a table in Markdown."""
    head, *lines = _lines(columns, metrics)
    rule = ["---", *["---:" for _ in columns]]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *lines))


def _lines(columns: Mapping[str, Mapping[str, float]], metrics: Sequence[MetricSpec]) -> list[list[str]]:
    lines = [["", *columns]]
    for metric in metrics:
        cells = [_cell(metric, scores.get(metric.name, math.nan)) for scores in columns.values()]
        lines.append([f"{metric.label} {_ARROWS[metric.better]}", *cells])
    return lines
