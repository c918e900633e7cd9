"""Which charts the page has, and what stands around them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bokeh.models import DataRange1d
from bokeh.plotting import figure

from colordist.metrics import METRICS, Metric
from colordist.metrics.hues import CENTERS, Histograms
from colordist.reporting import drawing
from colordist.reporting.board import BASELINES, References
from colordist.reporting.curves import SPEED, Curve, curve, loss_keys
from colordist.reporting.drawing import Dash, Style, Styled
from colordist.reporting.groups import Group
from colordist.reporting.runs import Run

COLORS = 8
"""How many the page has; beyond that, dashes tell groups apart."""

_DASHES: tuple[Dash, ...] = ("solid", "dashed", "dotted", "dashdot")  # first run of a group, second, ...
_SCORES = ("ciede2000", "colorfulness")
_LOWEST = 0.01  # percent of pixels: where empty bins are drawn


@dataclass(frozen=True)
class Chart:
    """A chart and what is written around it."""

    title: str
    note: str
    """Which way is better; may be empty."""
    digits: int | None
    """Decimals of its values; None: four significant digits."""
    figure: figure


def styles(groups: Sequence[Group]) -> dict[Run, Style]:
    """A colour for each group, a dash for each of its runs."""
    return {
        run: Style(place % COLORS, _DASHES[(place // COLORS + seed) % len(_DASHES)])
        for place, group in enumerate(groups)
        for seed, run in enumerate(group.runs)
    }


def score_charts(runs: Mapping[Run, Style], references: References, steps: DataRange1d) -> list[Chart]:
    """CIEDE2000 and colourfulness at every evaluation, with floors and ceiling. steps: the range that curves share."""
    notes = {"lower": "lower is better", "higher": "higher is better", "truth": "best near the truth"}
    charts = []
    for metric in (metric for name in _SCORES for metric in METRICS if metric.name == name):
        curves = _curves(runs, f"scores/{metric.name}")
        if curves:
            shown = drawing.lines(curves, steps, marks=True)
            for label, score in _limits(metric, references).items():
                is_floor = label.startswith("floor")
                is_high = is_floor == (metric.better == "lower")  # so its name fits below
                drawing.mark(shown, label, score, "right" if is_floor else "left", below=is_high)
            charts.append(Chart(metric.label, notes[metric.better], metric.digits, shown))
    return charts


def speed_chart(runs: Mapping[Run, Style], steps: DataRange1d) -> list[Chart]:
    """Images per second, if it was logged."""
    curves = _curves(runs, SPEED)
    return [Chart("Images/s", "higher is faster", 0, drawing.lines(curves, steps, from_zero=True))] if curves else []


def loss_charts(runs: Mapping[Run, Style], steps: DataRange1d) -> dict[str, list[Chart]]:
    """A chart for each loss, by phase."""
    charts: dict[str, list[Chart]] = {}
    for key in loss_keys([*runs]):
        phase, name = key.split("/")
        charts.setdefault(phase, []).append(Chart(name, "", None, drawing.lines(_curves(runs, key), steps)))
    return charts


def histogram_charts(runs: Mapping[Run, Style], found: Mapping[Run, Histograms], target: Histograms) -> list[Chart]:
    """How often which a and which b occur. found: of the runs that have pictures."""
    numbers = {run: (number, style) for number, (run, style) in enumerate(runs.items())}
    a = {numbers[run]: histograms.a for run, histograms in found.items()}
    b = {numbers[run]: histograms.b for run, histograms in found.items()}
    return [
        Chart("a", "green to red, % of pixels", 3, drawing.stairs(CENTERS, a, target.a, _LOWEST)),
        Chart("b", "blue to yellow, % of pixels", 3, drawing.stairs(CENTERS, b, target.b, _LOWEST)),
    ]


def _curves(runs: Mapping[Run, Style], key: str) -> dict[Styled, Curve]:
    found = {(number, style): curve(run, key) for number, (run, style) in enumerate(runs.items())}
    return {styled: line for styled, line in found.items() if line is not None}


def _limits(metric: Metric, references: References) -> dict[str, float]:
    """What lines are drawn across a metric's chart: floors, as one where they are equal; and what is to be reached."""
    known = {name: scores[metric.name] for name, scores in references.items() if metric.name in scores}
    baselines = {each.label: known[each.name] for each in BASELINES if each.name in known}
    if len(baselines) > 1 and len(set(baselines.values())) == 1:
        baselines = {"floors": next(iter(baselines.values()))}
    goal = "truth" if metric.better == "truth" else "oracle"
    return baselines | ({goal: known[goal]} if goal in known else {})
