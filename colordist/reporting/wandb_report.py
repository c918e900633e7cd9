"""Report on Weights & Biases: verdict and scores as text, curves as W&B panels."""

import re
from typing import Any

from colordist.errors import RunError, UserError
from colordist.extras import needs_extra
from colordist.files.atomic import content
from colordist.files.documents import damage_of, typed
from colordist.metrics.table import beside_references
from colordist.metrics.table import markdown as markdown_table
from colordist.reporting.charts import charted
from colordist.reporting.comparison import Comparison
from colordist.reporting.curves import losses
from colordist.reporting.runs import Run
from colordist.run.records import LOSS, SCORE, SPEED
from colordist.tracking import has_key
from colordist.tracking.weights_and_biases import Known, read_known

_WIDTH, _HEIGHT = 8, 6  # of a panel; a row is 24 wide
_LONGEST = 128  # characters of a title


def publish(comparison: Comparison) -> str:
    """Create the report and return its address.

    Raises UserError without a key, without the packages, and for runs that weren't tracked or lie in several
    projects; RunError where the server refuses.
    """
    ids = [wandb_id(run) for run in comparison.runs]
    project = _common(comparison, "project")
    if not has_key():
        raise UserError("--wandb: there is no key: run `wandb login` once. The local page is written")
    with needs_extra("wandb", "--wandb"):
        import wandb
        import wandb_workspaces.reports.v2  # noqa: F401  for `build`
    try:
        report = build(comparison, ids, project, _common(comparison, "entity") or str(wandb.Api().default_entity))
        report.save()
    except Exception as error:  # whatever the network or the server comes up with
        raise RunError(f"--wandb: W&B made no report ({' '.join(str(error).split())[:200]})") from None
    return str(report.url)


def build(comparison: Comparison, ids: list[str], project: str, entity: str) -> Any:  # noqa: ANN401  its own is untyped
    """Build a ``wandb_workspaces.reports.v2.Report`` without network access. ids: the runs' W&B ids."""
    import wandb_workspaces.reports.v2 as wr

    logged = {key for run in comparison.runs for record in run.records for key in record}
    titles = {f"{SCORE}{metric.name}": metric.label for metric in charted(comparison.specs)} | {SPEED: "Images/s"}
    titles = {key: title for key, title in titles.items() if key in logged}
    for network, names in losses(comparison.runs).items():
        titles |= {f"{LOSS}{network}/{name}": f"{network} {name}" for name in names}
    panels: list[Any] = [
        wr.LinePlot(x="step", y=[key], title=title, layout=_layout(number))
        for number, (key, title) in enumerate(titles.items())
    ]
    below = -(-len(titles) // 3) * _HEIGHT
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
    """Format verdict, notes and scores as Markdown."""
    verdict = comparison.verdict
    notes = "\n".join(f"- {_plain(note)}" for note in comparison.notes)
    means: dict[str, dict[str, float]] = {_plain(group.name): {} for group in comparison.groups}
    for row in comparison.rows:
        for scores, cell in zip(means.values(), row.cells, strict=True):
            scores |= {row.metric.name: cell.mean} if cell else {}
    table = beside_references(comparison.specs, comparison.references, means, markdown_table)
    parts = [f"**{_plain(verdict.line)}**", *map(_plain, verdict.reasons), notes, table if comparison.rows else ""]
    return "\n\n".join(part for part in parts if part)


def wandb_id(run: Run) -> str:
    """Read a run's W&B id. Raises UserError for a run that wasn't tracked with W&B."""
    path = run.folder.path
    if (known := read_known(path / "wandb.json")) is not None:
        return known.id
    if (former := content(path / "wandb_id")) is not None:
        with damage_of(path / "wandb_id"):
            return typed({"id": former.decode(errors="replace").strip()}, Known).id
    raise UserError(f"--wandb: {path} wasn't tracked by W&B: train with --track.wandb auto")


def _layout(number: int) -> Any:  # noqa: ANN401  wandb-workspaces is imported only when it is needed
    import wandb_workspaces.reports.v2 as wr

    return wr.Layout(x=number % 3 * _WIDTH, y=number // 3 * _HEIGHT, w=_WIDTH, h=_HEIGHT)


def _plain(text: str) -> str:
    """Escape Markdown's special characters."""
    return re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", text)


def _common(comparison: Comparison, key: str) -> str:
    """Value of a tracking setting that all runs share; empty if unset."""
    values = {str(run.settings.get("track", {}).get(key) or "") for run in comparison.runs}
    if len(values) > 1:
        raise UserError(f"--wandb: the runs differ in track.{key} ({', '.join(sorted(values))}), a report has one")
    return values.pop()
