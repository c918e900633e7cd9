"""The local page: one file that needs nothing else."""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.resources import files
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape

from colordist.metrics import hues
from colordist.reporting import charts, drawing, settings, tiles
from colordist.reporting.board import BASELINES, LIMITS, Row, common_references
from colordist.reporting.charts import Chart
from colordist.reporting.comparison import Comparison
from colordist.reporting.curves import MOST_POINTS, STRETCHES
from colordist.reporting.drawing import Style
from colordist.reporting.runs import Run
from colordist.reporting.spread import Difference
from colordist.reporting.tiles import Gallery

_BETTER = {
    "lower": ("↓", "lower is better"),
    "higher": ("↑", "higher is better"),
    "truth": ("→", "the nearer to the truth's score, the better"),
}
_NONE, _MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
_DASHES = {"solid": "none", "dashed": "5 3", "dotted": "2 3", "dashdot": "6 2 2 2"}


def page(comparison: Comparison) -> str:
    """The whole report as HTML."""
    looks = charts.styles(comparison.groups)
    gallery = tiles.gallery(comparison.runs)
    curves = _curves(comparison, looks)
    histograms = _histograms(gallery, looks) if gallery else []
    drawn = [chart for _, each in curves for chart in each] + histograms
    script, elements = drawing.embed([chart.figure for chart in drawn]) if drawn else ("", [])
    placed = iter([{**vars(chart), "element": element} for chart, element in zip(drawn, elements, strict=True)])
    context = _text(comparison, looks) | {
        "notes": comparison.notes + (_left_out(gallery, comparison) if gallery else []),
        "curves": [(spec, [next(placed) for _ in each]) for spec, each in curves],
        "hues": list(placed),
        "gallery": gallery and _gallery(gallery, comparison, looks),
        "pixels": 0 if gallery is None else gallery.target.size // 3,
        "bin_width": hues.WIDTH,
        "thinned": any(len(run.records) > MOST_POINTS for run in comparison.runs),
        "stretches": STRETCHES,
        "dashes": _DASHES,
        "data": _island(
            {"runs": [{"name": name, "color": looks[run].color} for run, name in comparison.names.items()]}
        ),
        "library": drawing.library() if drawn else "",
        "charts_script": script,
        "made": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
    }
    context["sections"] = _sections(context)
    folder = files("colordist.reporting") / "page"
    scripts = {name: (folder / file).read_text() for name, file in (("style", "style.css"), ("script", "script.js"))}
    environment = Environment(
        loader=PackageLoader("colordist.reporting", "page"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html").render(context | scripts)


def _text(comparison: Comparison, looks: Mapping[Run, Style]) -> dict[str, Any]:
    """What needs no chart: verdict, scores, runs, settings, commands."""
    steps = {run.scored_step for run in comparison.runs if run.scored_step is not None}
    return {
        "title": comparison.title,
        "verdict": comparison.verdict,
        "floors": BASELINES,
        "limits": LIMITS,
        "better": _BETTER,
        "rows": comparison.rows,
        "truth_rows": any(row.metric.better == "truth" for row in comparison.rows),
        "several_seeds": any(len(each.counted) > 1 for each in comparison.groups),
        "scored": f", at step {steps.pop():,}" if len(steps) == 1 else "",
        "digits": _digits,
        "signed": _signed,
        "limits_of": _limits,
        "breakable": _breakable,
        "groups": [
            {"name": each.name, "seeds": len(each.counted), "style": looks[each.runs[0]]} for each in comparison.groups
        ],
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
    scores = charts.score_charts(looks, common_references(comparison.runs), steps)
    found = [("Scores on the test images, and speed", scores + charts.speed_chart(looks, steps))]
    found += [(f"Losses of the {phase}", each) for phase, each in charts.loss_charts(looks, steps).items()]
    return [(spec, each) for spec, each in found if each]


def _histograms(gallery: Gallery, looks: Mapping[Run, Style]) -> list[Chart]:
    found = {run: hues.histograms(answers) for run, answers in gallery.answers.items()}
    return charts.histogram_charts(looks, found, hues.histograms(gallery.target))


def _gallery(gallery: Gallery, comparison: Comparison, looks: Mapping[Run, Style]) -> dict[str, Any]:
    distances, between = gallery.from_truth, gallery.between_runs
    furthest = np.mean([*distances.values()], axis=0)
    rows = []
    for index in range(len(gallery.target)):
        shown = [(gallery.grey, None), *((gallery.answers[run], distances[run][index]) for run in gallery.answers)]
        shown.append((gallery.target, None))
        rows.append(
            {
                "index": index + 1,
                "between": between[index],
                "truth": furthest[index],
                "tiles": [{"uri": tiles.data_uri(each[index]), "distance": distance} for each, distance in shown],
            }
        )
    names = [{"name": comparison.names[run], "style": looks[run]} for run in gallery.answers]
    return {
        "rows": rows,
        "columns": [{"name": "grey", "style": None}, *names, {"name": "truth", "style": None}],
        "size": gallery.size,
        "exact": gallery.size <= 64,
        "can_differ": len(gallery.answers) > 1,
        "note": tiles.storage_note(gallery.size),
    }


def _left_out(gallery: Gallery, comparison: Comparison) -> list[str]:
    return [
        f"{comparison.names[run]} {reason}: it isn't among the pictures." for run, reason in gallery.left_out.items()
    ]


def _sections(context: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    return [
        (name, title)
        for name, title, there in (
            ("scores", "Scores", context["rows"]),
            ("curves", "Curves", context["curves"]),
            ("pictures", "EvalBatch", context["gallery"]),
            ("colours", "Colours", context["hues"]),
            ("runs", "Runs", True),
            ("settings", "Settings", len(context["runs"]) > 1),
            ("repeat", "Repeat", True),
        )
        if there
    ]


def _digits(row: Row, score: float | None) -> str:
    return _NONE if score is None else f"{score:,.{row.metric.digits}f}".replace("-", _MINUS)


def _limits(row: Row) -> str:
    """Floors, ceiling and truth in a line, for narrow windows."""
    known = [(each.label, row.references[each.name]) for each in (*BASELINES, *LIMITS) if each.name in row.references]
    return " · ".join(f"{label.replace(': ', ' ')} {_digits(row, score)}" for label, score in known)


def _breakable(name: str) -> Markup:
    """A name that may go on in the next line after each full stop, but not within a number."""
    return Markup(re.sub(r"\.(?=[a-z])", ".<wbr>", str(escape(name))))


def _signed(row: Row, found: Difference) -> str:
    text = f"{found.mean:+.{row.metric.digits}f}".replace("-", _MINUS)
    if found.margin is None:
        return text
    return f"{'' if found.is_clear else '≈ '}{text} ± {found.margin:.{row.metric.digits}f}"


def _island(data: object) -> str:
    """JSON that can't end the script element it stands in."""
    return json.dumps(data).replace("<", "\\u003c")
