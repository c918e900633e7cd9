"""Which runs there are."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from colordist.config import UserError
from colordist.metrics import METRICS
from colordist.reporting.board import loss
from colordist.reporting.runs import Record, load_runs, number
from colordist.run.folder import RunFolder

_JUDGE = "ciede2000"


@dataclass(frozen=True)
class Listed:
    """A run in few words."""

    path: Path
    task: str
    state: str
    step: int
    steps: int
    changed: float
    """When it last wrote, in seconds since 1970."""
    best: tuple[float, int] | None
    """Its best CIEDE2000 and the step of that; None where there is no score."""


def find(folder: Path) -> list[Listed]:
    """The runs in a folder and below, newest first; damaged ones as such. Raises UserError where there is no folder."""
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: name the one that holds your runs")
    return sorted((_listed(path) for path in _run_folders(folder)), key=lambda run: run.changed, reverse=True)


def listing(runs: Sequence[Listed], folder: Path) -> str:
    """Runs as an aligned table. folder: what their names are told from."""
    if not runs:
        return f"no runs under {folder}"
    metric = next(each for each in METRICS if each.name == _JUDGE)
    lines = [("run", "task", "state", "step", f"best {metric.label}", "changed")]
    for run in runs:
        best = f"{run.best[0]:.{metric.digits}f} at {run.best[1]:,}" if run.best else "-"
        changed = datetime.fromtimestamp(run.changed).strftime("%Y-%m-%d %H:%M")
        lines.append((str(run.path), run.task, run.state, f"{run.step:,}/{run.steps:,}", best, changed))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    to_right = (3, 4)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place in to_right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _run_folders(folder: Path) -> list[Path]:
    """Where a config.yaml lies beside metrics or checkpoints: alone it may be anybody's."""
    found = []
    for path, folders, names in os.walk(folder):
        if "config.yaml" in names and ("metrics.jsonl" in names or "checkpoints" in folders):
            found.append(Path(path))
            folders.clear()  # what lies in a run folder is the run's
    return found


def _listed(path: Path) -> Listed:
    folder = RunFolder(path)
    changed = max(file.stat().st_mtime for file in (folder.config_file, folder.metrics_file) if file.exists())
    try:
        (run,) = load_runs([folder])
        step, steps = run.step, run.steps
    except (UserError, KeyError, TypeError, ValueError):
        return Listed(path, "-", "damaged", 0, 0, changed, None)
    return Listed(path, run.task, run.state, step, steps, changed, _best(run.records))


def _best(records: Sequence[Record]) -> tuple[float, int] | None:
    metric = next(each for each in METRICS if each.name == _JUDGE)
    scores = [
        (score, record["step"]) for record in records if (score := number(record, f"scores/{_JUDGE}")) is not None
    ]
    return min(scores, key=lambda pair: loss(metric, pair[0], {}), default=None)
