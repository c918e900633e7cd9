"""Disks that fail, and the run that none of them may change."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from disk import Disk, why_not
from helpers import alone_on_the_cpu
from runs import run
from storage_runs import SETTINGS

from colordist.run.folder import RunFolder


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    if reason := why_not():
        pytest.skip(reason)
    try:
        disk = Disk(tmp_path / "files", tmp_path / "disk")
    except OSError as error:
        pytest.skip(f"needs the right to mount ({error})")
    yield disk
    disk.close()


@pytest.fixture
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("colordist.run.lock.HEARTBEAT", 0.02)
    with alone_on_the_cpu(monkeypatch):
        yield


@pytest.fixture(scope="session")
def straight(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The same run on a disk without faults."""
    with pytest.MonkeyPatch.context() as patch, alone_on_the_cpu(patch):
        return run(tmp_path_factory.mktemp("runs") / "straight", **SETTINGS)
