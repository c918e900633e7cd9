"""Charts of the report page, with titles and notes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bokeh.models import DataRange1d
from bokeh.plotting import figure

from colordist.metrics.hues import CENTERS, Histograms
from colordist.metrics.specs import MetricSpec, ReferenceSpec, ScoreSpecs
from colordist.reporting import drawing
from colordist.reporting.curves import Curve, curve, losses
from colordist.reporting.drawing import Dash, Style, Styled
from colordist.reporting.groups import Group
from colordist.reporting.runs import Run
from colordist.run.records import LOSS, SCORE, SPEED, References

COLORS = 8
"""Number of colours; further groups are told apart by dashes."""

_DASHES: tuple[Dash, ...] = ("solid", "dashed", "dotted", "dashdot")  # first run of a group, second, ...
_LOWEST = 0.01  # percent of pixels: where empty bins are drawn


@dataclass(frozen=True)
class Chart:
    """A chart with its title."""

    title: str
    note: str
    """Direction of the metric; may be empty."""
    digits: int | None
    """Decimals of values; None: four significant digits."""
    figure: figure


def styles(groups: Sequence[Group]) -> dict[Run, Style]:
    """Line styles: a colour per group, a dash per run of it."""
    return {
        run: Style(number % COLORS, _DASHES[(number // COLORS + seed) % len(_DASHES)])
        for number, group in enumerate(groups)
        for seed, run in enumerate(group.runs)
    }


def charted(specs: ScoreSpecs) -> list[MetricSpec]:
    """Metrics with a chart: the primary and the diagnostic ones."""
    return [specs.primary, *(each for each in specs.metrics if each.role == "diagnostic")]


def score_charts(
    runs: Mapping[Run, Style], references: References, specs: ScoreSpecs, steps: DataRange1d
) -> list[Chart]:
    """Plot the scores of all evaluations, with those of the references. steps: the shared x range."""
    charts = []
    for metric in charted(specs):
        curves = _curves(runs, f"{SCORE}{metric.name}")
        if curves:
            shown = drawing.lines(curves, steps, marks=True)
            for reference, score in _limits(metric, references, specs):
                is_baseline = reference.role == "baseline"
                is_high = is_baseline == (metric.better == "lower")  # then its label fits below
                drawing.mark(shown, reference.label, score, "right" if is_baseline else "left", below=is_high)
            charts.append(Chart(metric.label, metric.direction, metric.digits, shown))
    return charts


def speed_chart(runs: Mapping[Run, Style], steps: DataRange1d) -> list[Chart]:
    """Plot images per second, if logged."""
    curves = _curves(runs, SPEED)
    return [Chart("Images/s", "higher is faster", 0, drawing.lines(curves, steps, from_zero=True))] if curves else []


def loss_charts(runs: Mapping[Run, Style], steps: DataRange1d) -> dict[str, list[Chart]]:
    """Plot each loss, by network."""
    return {
        network: [
            Chart(name, "", None, drawing.lines(_curves(runs, f"{LOSS}{network}/{name}"), steps)) for name in names
        ]
        for network, names in losses([*runs]).items()
    }


def histogram_charts(runs: Mapping[Run, Style], found: Mapping[Run, Histograms], target: Histograms) -> list[Chart]:
    """Plot histograms of a and b. found: those of the runs with samples."""
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


def _limits(metric: MetricSpec, references: References, specs: ScoreSpecs) -> list[tuple[ReferenceSpec, float]]:
    """Horizontal lines of a metric's chart: baselines, equal ones as one, and the best possible score."""
    limit = specs.best(metric)
    wanted = [*specs.of_role("baseline"), *([limit] if limit else [])]
    known = [(each, scores[metric.name]) for each in wanted if metric.name in (scores := references.get(each.name, {}))]
    baselines = [pair for pair in known if pair[0].role == "baseline"]
    if len(baselines) > 1 and len({score for _, score in baselines}) == 1:
        known = [(replace(baselines[0][0], label="baselines"), baselines[0][1]), *known[len(baselines) :]]
    return known
