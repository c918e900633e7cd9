"""Runs on disks that begin to fail, and what must hold for them."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from runs import assert_bit_equal, learned
from torch import Tensor

from colordist.data.batch import Batch
from colordist.engine.runtime import Engine
from colordist.run import checkpoint, snapshot
from colordist.run.folder import RunFolder, numbered
from colordist.tasks.base import Task

SETTINGS: dict[str, Any] = {
    **{"log__every": 1, "evaluate__every": 3, "checkpoint__every": 3},
    "run__heartbeat_timeout": 1,  # a lock that couldn't be released is this process's, which is alive
}


@contextmanager
def at_step(number: int, work: Callable[[], object]) -> Iterator[None]:
    """Context in which some work is done before a step."""
    real = Engine.step

    def step(engine: Engine, task: Task, batches: list[Batch], step: int) -> dict[str, Tensor]:
        if step == number:
            work()
        return real(engine, task, batches, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "step", step)
        yield


def assert_finished(found: RunFolder, expected: RunFolder) -> None:
    """A run has finished as if nothing had happened, and left nothing behind."""
    assert found.is_finished(6)
    assert learned(found) == learned(expected)
    assert_bit_equal(expected, found)
    assert_whole(found)
    assert [path for path in found.path.rglob("*") if ".colordist-" in path.name or ".tmp-" in path.name] == []


def assert_whole(folder: RunFolder) -> None:
    """Whatever has its final name is complete."""
    for path in numbered(folder.checkpoints):
        checkpoint.load(path)
        assert sorted(each.name for each in path.iterdir()) == ["manifest.json", "state.pt"]
    for path in numbered(folder.snapshots):
        snapshot.read(path)
    for path in folder.samples.glob("step-*.png"):
        with Image.open(path) as image:
            image.load()
    if folder.metrics_file.exists():
        folder.records()


def files(folder: Path) -> dict[str, bytes]:
    """The files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextmanager
def tmpfs(path: Path, size: int) -> Iterator[Path]:
    """A small disk. size: in bytes."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount")
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], check=False).returncode:
        pytest.skip("needs the right to mount")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)
