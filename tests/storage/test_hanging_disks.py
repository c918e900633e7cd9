"""Training on a disk that doesn't respond for a while, or never again."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from disk import HELD, Disk
from helpers import clean_environment, tiny
from runs import run
from storage_runs import SETTINGS, assert_finished, assert_whole, at_step

from colordist.config import as_dict
from colordist.run.folder import RunFolder

pytestmark = [pytest.mark.storage, pytest.mark.usefixtures("_alone")]


@pytest.mark.parametrize("paths", ["/metrics.jsonl$", "/checkpoints", "/snapshots", "/lock"])
def test_a_run_waits_for_a_disk_that_responds_again(paths: str, disk: Disk, straight: RunFolder) -> None:
    with disk.once_held(disk.mend), at_step(2, lambda: disk.follow(replace(HELD, paths=paths))):
        folder = run(disk.path / "run", **SETTINGS)
    assert_finished(folder, straight)


@pytest.mark.parametrize("paths", ["/metrics.jsonl$", "/state.pt$"])
def test_a_run_that_hangs_ends_after_the_stall_timeout(
    paths: str, disk: Disk, straight: RunFolder, tmp_path: Path
) -> None:
    folder = RunFolder(disk.path / "run")
    settings = SETTINGS | {"run__stall_timeout": 2}
    config = tmp_path / "hanging.yaml"
    config.write_text(yaml.safe_dump(as_dict(tiny(run__dir=str(folder.path), **settings))))
    disk.follow(replace(HELD, paths=paths, after=8))
    done = subprocess.run(
        [sys.executable, "-m", "colordist.train", "--config", config],
        capture_output=True,
        text=True,
        env=clean_environment() | {"OMP_NUM_THREADS": "1"},
        timeout=60,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("colordist: no progress for 2 s (it was at step ")
    disk.mend()
    assert_whole(folder)
    run(folder.path, **settings)
    assert_finished(folder, straight)
