"""Scores as plain text."""

import math
from collections.abc import Mapping, Sequence

from colordist.metrics.metric import Metric

_ARROWS = {"lower": "↓", "higher": "↑", "truth": "→ truth"}


def _cell(metric: Metric, score: float) -> str:
    return "-" if math.isnan(score) else f"{score:.{metric.digits}f}"


def table(rows: Mapping[str, Mapping[str, float]], metrics: Sequence[Metric]) -> str:
    """Lay scores out in an aligned table: one line per row, one column per metric; "-" where there is no score.

    rows: from the row's label to its scores by the metrics' names. An arrow in the heading shows the better way.
    """
    lines = [["", *(f"{metric.label} {_ARROWS[metric.better]}" for metric in metrics)]]
    for label, scores in rows.items():
        lines.append([label, *(_cell(metric, scores.get(metric.name, math.nan)) for metric in metrics)])
    first, *others = (max(map(len, column)) for column in zip(*lines, strict=True))
    return "\n".join(
        "  ".join([label.ljust(first), *(cell.rjust(width) for cell, width in zip(cells, others, strict=True))])
        for label, *cells in lines
    )
