"""What the experiments share: runs that are trained, or go on, while there is time, and scores over several seeds."""

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from colordist.reporting.runs import Run, load_runs
from colordist.run.folder import RunFolder

Spread = dict[str, float]
"""Mean and range over the seeds."""


def minutes_left(deadline: float | None) -> float | None:
    """Until a deadline of the monotonic clock; None where there is none."""
    return None if deadline is None else (deadline - time.monotonic()) / 60


def begin(
    folder: RunFolder, config: Path | None, settings: Mapping[str, object], minutes: float | None
) -> subprocess.Popen[bytes]:
    """Begin to train a run, or go on training it, for some minutes at most."""
    command = [sys.executable, "-m", "colordist.train", "--run.dir", str(folder.path)]
    command += ["--config", str(config)] if config else []
    command += [f"--{key}={_text(value)}" for key, value in settings.items()]
    command += [] if minutes is None else [f"--train.max_minutes={minutes}"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def _text(value: object) -> str:
    return f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)


def spreads(folders: Sequence[RunFolder]) -> tuple[dict[str, Spread], Mapping[str, Mapping[str, float]]]:
    """Each last score over finished runs, at least one, and the scores of the baselines."""
    runs: Sequence[Run] = load_runs(folders)
    scores = {name: [run.scores[name] for run in runs] for name in runs[0].scores}
    return {
        name: {"mean": sum(values) / len(values), "min": min(values), "max": max(values), "n": len(values)}
        for name, values in scores.items()
    }, runs[0].references


def told(spread: Spread, digits: int) -> str:
    """A spread in words."""
    mean, low, high = (f"{spread[key]:.{digits}f}" for key in ("mean", "min", "max"))
    return f"{mean} ({low} to {high}, n={spread['n']:.0f})" if spread["n"] > 1 else f"{mean} (n=1)"
