"""Complete runs within this process, of about a second, optionally killed; and comparison of their results."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import tiny
from torch import Tensor

from colordist.cli.parser import Command
from colordist.data.batch import Batch
from colordist.engine.runtime import Engine
from colordist.run.folder import RunFolder, numbered
from colordist.run.records import PACE
from colordist.tasks.base import Task
from colordist.train import train


def run(path: Path, **settings: Any) -> RunFolder:  # noqa: ANN401  any setting
    """Train, or continue training."""
    train(Command(tiny(run__dir=str(path), **settings), Path("tiny.yaml"), False))
    return RunFolder(path)


class Killed(BaseException):
    """Simulates a kill: no handler of exceptions catches it."""


def killed_run(path: Path, monkeypatch: pytest.MonkeyPatch, at: int, **settings: Any) -> RunFolder:  # noqa: ANN401
    """Train until the run is killed in a step."""
    real = Engine.step

    def step(engine: Engine, task: Task, batches: list[Batch], step: int) -> dict[str, Tensor]:
        log = real(engine, task, batches, step)
        if step == at:
            raise Killed
        return log

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "step", step)
        with pytest.raises(Killed):
            run(path, **settings)
    return RunFolder(path)


def learned(folder: RunFolder) -> list[dict[str, float]]:
    """Records of metrics.jsonl without speed and memory."""
    return [{key: v for key, v in line.items() if not key.startswith(PACE)} for line in folder.records()]


def flat(state: object, prefix: str = "") -> dict[str, object]:
    """Flatten nested dicts and lists: values by path."""
    if isinstance(state, dict | list):
        pairs = state.items() if isinstance(state, dict) else enumerate(state)
        return {k: v for key, value in pairs for k, v in flat(value, f"{prefix}/{key}").items()}
    return {prefix: state}


def tensors(state: dict[str, object]) -> dict[str, Tensor]:
    """The tensors of a flat state."""
    return {path: value for path, value in state.items() if isinstance(value, Tensor)}


def everything(folder: RunFolder) -> dict[str, object]:
    """The state in the newest checkpoint, by path."""
    return flat(torch.load(numbered(folder.checkpoints)[-1] / "state.pt", weights_only=True))


def assert_bit_equal(first: RunFolder, second: RunFolder) -> None:
    expected, found = everything(first), everything(second)
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        other = found[key]
        same = torch.equal(value, other) if isinstance(value, Tensor) and isinstance(other, Tensor) else value == other
        assert same, key
    for part in ("module", "optimizer", "ema"):  # all of it was there to be compared
        assert any(f"/generator/{part}/" in key for key in tensors(expected))
    weights = [folder.snapshots / "latest" / "model.safetensors" for folder in (first, second)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
