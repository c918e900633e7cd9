"""Checkpoints: everything needed to continue, for the trainer alone."""

import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import torch

from colordist.config import RunError, UserError
from colordist.run_folder import numbered, step_name

FORMAT = 2
_FILE = "state.pt"


def save(folder: Path, step: int, state: dict[str, Any], keep: int) -> None:
    """Write a checkpoint, then drop all but the newest ``keep``.

    It is written beside its place and then renamed, so a checkpoint exists whole or not at all.
    Raises RunError where that is impossible.
    """
    try:
        final, temporary = folder / step_name(step), folder / f"{step_name(step)}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        with (temporary / _FILE).open("wb") as file:
            torch.save({"format": FORMAT, "step": step, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
    except (OSError, RuntimeError) as error:  # torch says RuntimeError for a full disk
        reason = getattr(error, "strerror", None) or "is the disk full?"
        raise RunError(f"{final} can't be written ({reason}): make room; the same command continues") from None
    for old in _complete(folder)[:-keep]:
        shutil.rmtree(old)


def newest(folder: Path) -> Path | None:
    """The newest checkpoint; None where there is none yet."""
    complete = _complete(folder)
    return complete[-1] if complete else None


def load(checkpoint: Path) -> dict[str, Any]:
    """The state in a checkpoint, on the CPU: what belongs on a device moves there when it is taken up.

    Only tensors and plain values are read, so a hostile file can't run code. Raises UserError for a file that can't be
    read, or that a newer version wrote.
    """
    file = checkpoint / _FILE
    try:
        with zipfile.ZipFile(file) as archive:
            if damaged := archive.testzip():  # torch.load doesn't look at the checksums
                raise ValueError(f"{damaged} in it is damaged")
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise ValueError("it holds something else")
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{file} can't be read ({reason}): delete {file.parent} to continue from before") from None
    if state.get("format") != FORMAT:
        raise UserError(f"{file} has format {state.get('format')}, but this version reads {FORMAT}")
    return state


def _complete(folder: Path) -> list[Path]:
    """All checkpoints, oldest first."""
    return [path for path in numbered(folder) if (path / _FILE).exists()]
