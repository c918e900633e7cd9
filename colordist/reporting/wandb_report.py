"""The report at Weights & Biases: the same verdict and curves, beside what only W&B has."""

import json
import re
from typing import Any

from colordist.config import RunError, UserError
from colordist.metrics import METRIC_SPECS
from colordist.reporting.board import Row
from colordist.reporting.comparison import Comparison
from colordist.reporting.curves import SPEED, loss_keys
from colordist.reporting.runs import Run
from colordist.tracking import has_key

_SCORES = ("ciede2000", "colorfulness")
_WIDTH, _HEIGHT = 8, 6  # of a panel; a row is 24 wide
_LONGEST = 128  # characters of a title


def publish(comparison: Comparison) -> str:
    """Create the report and return its address.

    Raises UserError without a key, without wandb-workspaces, and for runs that weren't tracked or lie in several
    projects; RunError where the server refuses.
    """
    ids = [wandb_id(run) for run in comparison.runs]
    project = _common(comparison, "project")
    if not has_key():
        raise UserError("--wandb: there is no key: run `wandb login` once. The local page is written")
    try:
        import wandb

        report = build(comparison, ids, project, _common(comparison, "entity") or str(wandb.Api().default_entity))
        report.save()
    except ImportError:
        raise UserError("--wandb needs wandb-workspaces: pip install 'colordist[report]'") from None
    except Exception as error:  # whatever the network or the server comes up with
        raise RunError(f"--wandb: W&B made no report ({' '.join(str(error).split())[:200]})") from None
    return str(report.url)


def build(comparison: Comparison, ids: list[str], project: str, entity: str) -> Any:  # noqa: ANN401  its own is untyped
    """A ``wandb_workspaces.reports.v2.Report``, made and validated without a network. ids: the runs' at W&B."""
    import wandb_workspaces.reports.v2 as wr

    logged = {key for run in comparison.runs for record in run.records for key in record}
    scores = (f"scores/{name}" for name in _SCORES)
    keys = [*(key for key in (*scores, SPEED) if key in logged), *loss_keys(comparison.runs)]
    titles = {f"scores/{metric.name}": metric.label for metric in METRIC_SPECS} | {SPEED: "Images/s"}
    panels: list[Any] = [
        wr.LinePlot(x="step", y=[key], title=titles.get(key, key), layout=_place(number))
        for number, key in enumerate(keys)
    ]
    below = -(-len(keys) // 3) * _HEIGHT
    panels.append(wr.MediaBrowser(media_keys=["samples"], layout=wr.Layout(x=0, y=below, w=24, h=10)))
    panels.append(wr.RunComparer(diff_only="split", layout=wr.Layout(x=0, y=below + 10, w=24, h=10)))
    runs = wr.Runset(name="Compared runs", filters=f"Metric('ID') in {ids!r}")
    return wr.Report(
        project=project,
        entity=entity,
        title=comparison.title[:_LONGEST],
        description=comparison.verdict.line,
        width="fluid",
        blocks=[wr.MarkdownBlock(markdown(comparison)), wr.PanelGrid(runsets=[runs], panels=panels)],
    )


def markdown(comparison: Comparison) -> str:
    """Verdict, notes and scores."""
    verdict, names = comparison.verdict, [group.name for group in comparison.groups]
    notes = "\n".join(f"- {_plain(note)}" for note in comparison.notes)
    head = ["Score", *names, "oracle"]
    lines = [head, ["---", *["---:"] * (len(names) + 1)], *(_cells(row) for row in comparison.rows)]
    table = "\n".join(f"| {' | '.join(_plain(cell) for cell in line)} |" for line in lines)
    parts = [f"**{_plain(verdict.line)}**", *map(_plain, verdict.reasons), notes, table if comparison.rows else ""]
    return "\n\n".join(part for part in parts if part)


def wandb_id(run: Run) -> str:
    """A run's id at W&B. Raises UserError for a run that wasn't tracked there."""
    file, former = run.folder.path / "wandb.json", run.folder.path / "wandb_id"
    try:
        return str(json.loads(file.read_text())["id"]) if file.exists() else former.read_text().strip()
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"--wandb: {run.folder.path} wasn't tracked by W&B: train with --track.wandb auto") from None


def _cells(row: Row) -> list[str]:
    arrow = {"lower": "↓", "higher": "↑", "truth": "→"}[row.metric.better]
    cells = [f"{cell.mean:.{row.metric.digits}f}" if cell else "" for cell in row.cells]
    oracle = row.references.get("truth" if row.metric.better == "truth" else "oracle")
    return [f"{row.metric.label} {arrow}", *cells, "" if oracle is None else f"{oracle:.{row.metric.digits}f}"]


def _place(number: int) -> Any:  # noqa: ANN401  wandb-workspaces is imported only when it is needed
    import wandb_workspaces.reports.v2 as wr

    return wr.Layout(x=number % 3 * _WIDTH, y=number // 3 * _HEIGHT, w=_WIDTH, h=_HEIGHT)


def _plain(text: str) -> str:
    """Text that markdown takes for nothing else; the lines of a table stay whole."""
    return text if re.fullmatch(r"-+:?", text) else re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", text)


def _common(comparison: Comparison, key: str) -> str:
    """A tracking setting that all runs share; empty where it isn't set."""
    values = {str(run.settings.get("track", {}).get(key) or "") for run in comparison.runs}
    if len(values) > 1:
        raise UserError(f"--wandb: the runs differ in track.{key} ({', '.join(sorted(values))}), a report has one")
    return values.pop()
