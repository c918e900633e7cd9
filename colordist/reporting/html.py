"""Pages of reports: self-contained HTML files."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from colordist.metrics import hues
from colordist.metrics.specs import ScoreSpecs
from colordist.reporting import charts, drawing, settings
from colordist.reporting.charts import Chart
from colordist.reporting.comparison import Comparison
from colordist.reporting.curves import MOST_LOSSES, MOST_POINTS, STRETCHES, loss_keys
from colordist.reporting.drawing import Style
from colordist.reporting.gallery import Gallery, gallery
from colordist.reporting.runs import Run
from colordist.reporting.score_rows import Row
from colordist.reporting.spread import Difference
from colordist.reporting.template import render
from colordist.reporting.viewer import embed, storage_note

_NONE, _MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"


def page(comparison: Comparison) -> str:
    """Render the report as HTML."""
    looks = charts.styles(comparison.groups)
    samples = gallery(comparison.runs)
    curves = _curves(comparison, looks)
    histograms = _histograms(samples, looks) if samples else []
    drawn = [chart for _, each in curves for chart in each] + histograms
    script, elements = drawing.embed([chart.figure for chart in drawn]) if drawn else ("", [])
    placed = iter([{**vars(chart), "element": element} for chart, element in zip(drawn, elements, strict=True)])
    context = _text(comparison, looks) | {
        "notes": comparison.notes + _few_losses(comparison) + (_left_out(samples, comparison) if samples else []),
        "curves": [(heading, [next(placed) for _ in each]) for heading, each in curves],
        "hues": list(placed),
        "gallery": samples and _gallery(samples, comparison, looks),
        "pixels": 0 if samples is None else samples.target.size // 3,
        "bin_width": hues.WIDTH,
        "thinned": any(len(run.records) > MOST_POINTS for run in comparison.runs),
        "stretches": STRETCHES,
        "data": island({"runs": [{"name": name, "color": looks[run].color} for run, name in comparison.names.items()]}),
        "library": drawing.library() if drawn else "",
        "charts_script": script,
    }
    context["sections"] = _sections(context)
    return render("page.html", context)


def score_table(
    rows: Sequence[Row], specs: ScoreSpecs, groups: Sequence[Mapping[str, Any]], *, intervals: bool
) -> dict[str, Any]:
    """Template variables of the table of scores.

    groups: name, seeds and style of each column between baselines and limits. intervals: whether differences have some.
    """
    return {
        "baselines": specs.of_role("baseline"),
        "limits": specs.of_role("oracle", "target"),
        "rows": rows,
        "target_rows": any(row.metric.better == "target" for row in rows),
        "groups": groups,
        "intervals": intervals and len(groups) > 1,
        "digits": _digits,
        "signed": _signed,
        "references_of": lambda row: _references(row, specs),
        "breakable": _breakable,
    }


def _text(comparison: Comparison, looks: Mapping[Run, Style]) -> dict[str, Any]:
    """Template variables except charts and images: verdict, scores, runs, settings, commands."""
    steps = {run.scored_step for run in comparison.runs if run.scored_step is not None}
    several_seeds = any(len(each.counted) > 1 for each in comparison.groups)
    groups = [
        {"name": each.name, "seeds": len(each.counted), "style": looks[each.runs[0]]} for each in comparison.groups
    ]
    return score_table(comparison.rows, comparison.specs, groups, intervals=several_seeds) | {
        "title": comparison.title,
        "verdict": comparison.verdict,
        "several_seeds": several_seeds,
        "scored": f"the test images, at step {steps.pop():,}" if len(steps) == 1 else "the test images",
        "runs": [
            {
                "name": name,
                "style": looks[run],
                "folder": str(run.folder.path),
                "state": run.state,
                "seed": run.seed,
                "step": run.step,
                "steps": run.steps,
                "scored": run.scored_step,
                "speed": run.images_per_second,
                "command": settings.command(run),
            }
            for run, name in comparison.names.items()
        ],
        "settings": settings.differences([each.runs[0] for each in comparison.groups]),
    }


def _curves(comparison: Comparison, looks: Mapping[Run, Style]) -> list[tuple[str, list[Chart]]]:
    steps = drawing.step_range()
    scores = charts.score_charts(looks, comparison.references, comparison.specs, steps)
    found = [("Scores on the test images, and speed", scores + charts.speed_chart(looks, steps))]
    found += [(f"Losses of the {network}", each) for network, each in charts.loss_charts(looks, steps).items()]
    return [(heading, each) for heading, each in found if each]


def _histograms(gallery: Gallery, looks: Mapping[Run, Style]) -> list[Chart]:
    found = {run: hues.histograms(tiles) for run, tiles in gallery.predictions.items()}
    return charts.histogram_charts(looks, found, hues.histograms(gallery.target))


def _gallery(gallery: Gallery, comparison: Comparison, looks: Mapping[Run, Style]) -> dict[str, Any]:
    distances, between = gallery.to_target, gallery.between_runs
    mean_distance = np.mean([*distances.values()], axis=0)
    rows = []
    for index in range(len(gallery.target)):
        shown = [(gallery.grey, None), *((tiles, distances[run][index]) for run, tiles in gallery.predictions.items())]
        shown.append((gallery.target, None))
        rows.append(
            {
                "index": index + 1,
                "between": between[index],
                "distance": mean_distance[index],
                "tiles": [{"picture": embed(each[index]), "distance": distance} for each, distance in shown],
            }
        )
    names = [{"name": comparison.names[run], "style": looks[run]} for run in gallery.predictions]
    return {
        "rows": rows,
        "columns": [{"name": "grey", "style": None}, *names, {"name": "target", "style": None}],
        "size": gallery.size,
        "can_differ": len(gallery.predictions) > 1,
        "note": storage_note(gallery.size),
    }


def _few_losses(comparison: Comparison) -> list[str]:
    logged = len(loss_keys(comparison.runs))
    return [f"Of {logged} losses the first {MOST_LOSSES} are drawn."] if logged > MOST_LOSSES else []


def _left_out(gallery: Gallery, comparison: Comparison) -> list[str]:
    return [
        f"{comparison.names[run]} {reason}: it is left out of the samples." for run, reason in gallery.left_out.items()
    ]


def _sections(context: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    return [
        (name, title)
        for name, title, there in (
            ("scores", "Scores", context["rows"]),
            ("curves", "Curves", context["curves"]),
            ("samples", "Samples", context["gallery"]),
            ("colours", "Colours", context["hues"]),
            ("runs", "Runs", True),
            ("settings", "Settings", len(context["runs"]) > 1),
            ("repeat", "Repeat", True),
        )
        if there
    ]


def _digits(row: Row, score: float | None) -> str:
    return _NONE if score is None else f"{score:,.{row.metric.digits}f}".replace("-", _MINUS)


def _references(row: Row, specs: ScoreSpecs) -> str:
    """Format the references' scores in one line, for narrow windows."""
    known = [each for each in specs.references if each.name in row.references]
    return " · ".join(f"{each.label} {_digits(row, row.references[each.name])}" for each in known)


def _breakable(name: str) -> Markup:
    """Allow a name to wrap after a full stop, but not within a number."""
    return Markup(re.sub(r"\.(?=[a-z])", ".<wbr>", str(escape(name))))


def _signed(row: Row, found: Difference) -> str:
    text = f"{found.mean:+.{row.metric.digits}f}".replace("-", _MINUS)
    if found.margin is None:
        return text
    return f"{'' if found.is_clear else '≈ '}{text} ± {found.margin:.{row.metric.digits}f}"


def island(data: object) -> str:
    """Encode as JSON that is safe inside a script element."""
    return json.dumps(data).replace("<", "\\u003c")
