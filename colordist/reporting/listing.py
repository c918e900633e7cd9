"""List of the runs in a folder."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from colordist.errors import RunError, UserError
from colordist.reporting.runs import Run, load_run
from colordist.run.folder import RunFolder
from colordist.run.records import SCORE, number

_YEAR_9999 = 253_000_000_000  # seconds since 1970, which datetime can't exceed


@dataclass(frozen=True)
class Listed:
    """A row of the list."""

    path: Path
    task: str
    state: str
    step: int
    steps: int
    changed: float
    """Time of the last write, in seconds since 1970."""
    best: str
    """Best score by the primary metric, and its step."""


def find(folder: Path) -> list[Listed]:
    """List the runs below a folder, newest first, also damaged ones. Raises UserError if there is no folder."""
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: name the one that holds your runs")
    return sorted((_listed(path) for path in _run_folders(folder)), key=lambda run: run.changed, reverse=True)


def listing(runs: Sequence[Listed], folder: Path) -> str:
    """Format runs as an aligned table. folder: the one that was searched."""
    if not runs:
        return f"no runs under {folder}"
    lines = [("run", "task", "state", "step", "best score", "changed")]
    for run in runs:
        changed = datetime.fromtimestamp(min(run.changed, _YEAR_9999)).strftime("%Y-%m-%d %H:%M")
        lines.append((str(run.path), run.task, run.state, f"{run.step:,}/{run.steps:,}", run.best, changed))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    right_aligned = (3, 4)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in right_aligned else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _run_folders(folder: Path) -> list[Path]:
    """Find folders with a config.yaml beside metrics or checkpoints; a config.yaml alone may belong to anything."""
    found = []
    for path, folders, names in os.walk(folder):
        if "config.yaml" in names and ("metrics.jsonl" in names or "checkpoints" in folders):
            found.append(Path(path))
            folders.clear()  # no run inside a run
    return found


def _listed(path: Path) -> Listed:
    folder = RunFolder(path)
    changed = max(file.stat().st_mtime for file in (folder.config_file, folder.metrics_file) if file.exists())
    try:
        run = load_run(folder)
        return Listed(path, run.task, run.state, run.step, run.steps, changed, _best(run))
    except (UserError, RunError):
        return Listed(path, "-", "damaged", 0, 0, changed, "-")


def _best(run: Run) -> str:
    metric = run.specs.primary
    scores = [
        (s, int(record["step"])) for record in run.records if (s := number(record, f"{SCORE}{metric.name}")) is not None
    ]
    if not scores:
        return "-"
    score, step = min(scores, key=lambda pair: metric.cost(pair[0]))
    return f"{metric.label} {metric.format(score)} at {step:,}"
