"""Training on a disk that fails: it ends in one line, and the same command continues as if nothing had happened."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from disk import BROKEN, FULL, QUOTA, READ_ONLY, SLOW, STALE, Disk, Rule
from runs import run
from storage_runs import SETTINGS, assert_finished, assert_whole, at_step, files, tmpfs

from colordist.errors import RunError, UserError
from colordist.run.folder import RunFolder
from colordist.run.lock import LockLost

pytestmark = [pytest.mark.storage, pytest.mark.usefixtures("_alone")]

TOLD = {
    FULL: "No space left on device",
    QUOTA: "Disk quota exceeded",
    READ_ONLY: "Read-only file system",
    BROKEN: "Input/output error",
    STALE: "Stale file handle",
}
EVERYTHING, LOG, CHECKPOINTS = "", "/metrics.jsonl$", "/checkpoints(/|$)"
GRIDS, SNAPSHOTS, LOCK = "/samples(/|$)", "/snapshots(/|$)", "/lock(/|$)"


def assert_one_line(error: Exception, told: str) -> None:
    assert told in str(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("rule", "paths"),
    [
        *((rule, EVERYTHING) for rule in TOLD),
        *((FULL, LOG), (STALE, LOG)),
        *((QUOTA, CHECKPOINTS), (BROKEN, CHECKPOINTS)),
        *((FULL, GRIDS), (STALE, GRIDS)),
        *((FULL, SNAPSHOTS), (BROKEN, SNAPSHOTS)),
    ],
)
def test_a_run_ends_in_one_line_and_continues(rule: Rule, paths: str, disk: Disk, straight: RunFolder) -> None:
    folder = RunFolder(disk.path / "run")
    with at_step(2, lambda: disk.follow(replace(rule, paths=paths))), pytest.raises(RunError) as ended:
        run(folder.path, **SETTINGS)
    assert_one_line(ended.value, TOLD[rule])
    assert disk.mend() > 0
    assert_whole(folder)
    run(folder.path, **SETTINGS)
    assert_finished(folder, straight)


@pytest.mark.parametrize("rule", [*TOLD, replace(FULL, after=6), replace(BROKEN, after=12)])
def test_a_start_is_refused_in_one_line(rule: Rule, disk: Disk) -> None:
    folder, told = RunFolder(disk.path / "run"), TOLD[replace(rule, after=0)]
    mistake = rule == READ_ONLY  # another place is the way out
    disk.follow(rule)
    with pytest.raises(UserError if mistake else RunError) as refused:
        run(folder.path, **SETTINGS)
    assert_one_line(refused.value, told)
    disk.mend()
    assert_whole(folder)
    assert rule.after or not folder.path.exists()


def test_a_lock_that_cannot_be_written_is_no_reason_to_stop(disk: Disk, straight: RunFolder) -> None:
    with at_step(2, lambda: disk.follow(replace(FULL, paths=LOCK))):
        folder = run(disk.path / "run", **SETTINGS)
    assert disk.mend() > 0
    assert folder.is_finished(6)
    assert [path.suffix for path in (folder.path / "lock").iterdir()] == [".json"]


# --- a disk that is gone


def test_a_run_whose_file_system_vanishes_continues_once_it_is_back(disk: Disk, straight: RunFolder) -> None:
    folder = RunFolder(disk.path / "run")
    with at_step(2, disk.vanish), pytest.raises(RunError) as ended:
        run(folder.path, **SETTINGS)
    assert_one_line(ended.value, "Transport endpoint is not connected")
    disk.unmount()
    disk.mount()
    assert_whole(folder)
    run(folder.path, **SETTINGS)
    assert_finished(folder, straight)


def test_nothing_is_written_below_the_mount_point_of_an_unmounted_disk(disk: Disk, straight: RunFolder) -> None:
    folder = RunFolder(disk.path / "run")
    with at_step(2, disk.unmount), pytest.raises(LockLost, match=r"has lost .*/lock/000001\.json: once it is there"):
        run(folder.path, **SETTINGS)
    assert list(disk.path.rglob("*")) == []
    disk.mount()
    run(folder.path, **SETTINGS)
    assert_finished(folder, straight)


# --- a disk that is really full, or really read-only


def test_a_full_disk_is_continued_on_a_larger_one(tmp_path: Path, straight: RunFolder) -> None:
    size = sum(map(len, files(straight.path).values()))
    with tmpfs(tmp_path / "disk", size * 2 // 3) as path:
        with pytest.raises(RunError) as ended:
            run(path / "run", **SETTINGS)
        assert_one_line(ended.value, "No space left on device")
        folder = RunFolder(path / "run")
        assert_whole(folder)
        subprocess.run(["mount", "-o", f"remount,size={size * 4}", path], check=True)
        run(folder.path, **SETTINGS)
        assert_finished(folder, straight)


def test_a_disk_can_be_remounted_read_only_during_a_run(tmp_path: Path, straight: RunFolder) -> None:
    with tmpfs(tmp_path / "disk", 2**24) as path:
        remount = ["mount", "-o", "remount,ro", str(path)]  # refused while a file is open to be written
        with at_step(2, lambda: subprocess.run(remount, check=True)), pytest.raises(RunError) as ended:
            run(path / "run", **SETTINGS)
        assert_one_line(ended.value, "Read-only file system")
        subprocess.run(["mount", "-o", "remount,rw", path], check=True)
        folder = run(path / "run", **SETTINGS)
        assert_finished(folder, straight)


# --- a disk that is slow


def test_a_slow_disk_changes_nothing(disk: Disk, straight: RunFolder) -> None:
    disk.follow(SLOW)
    folder = run(disk.path / "run", **SETTINGS)
    assert disk.mend() > 100
    assert_finished(folder, straight)


# --- checkpoint.on_error warn


@pytest.mark.parametrize("rule", [FULL, STALE])
def test_training_continues_through_a_failure(
    rule: Rule, disk: Disk, straight: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    """With all lines of metrics.jsonl; a checkpoint and a snapshot are missing."""
    folder = RunFolder(disk.path / "run")
    with at_step(1, lambda: disk.follow(rule)), at_step(4, disk.mend):
        run(folder.path, **SETTINGS, checkpoint__on_error="warn")
    told = {record.getMessage() for record in caplog.records}
    for name in ("metrics.jsonl", "step-000003.png", "snapshots/step-000003"):
        line = f"{folder.path}/.*{name} can't be written ({TOLD[rule]}): .*; training continues"
        assert any(name in each and TOLD[rule] in each and each.endswith("; training continues") for each in told), line
    assert [path.name for path in sorted(folder.snapshots.glob("step-*"))] == ["step-000000", "step-000006"]
    assert_finished(folder, straight)


def test_a_last_checkpoint_that_is_missing_is_no_warning(disk: Disk, straight: RunFolder) -> None:
    """Nor is anything else that nobody would write later: else the run would count as finished."""
    folder, settings = RunFolder(disk.path / "run"), SETTINGS | {"checkpoint__on_error": "warn"}
    for paths, steps in ((CHECKPOINTS, 5), (SNAPSHOTS, 5), (LOG, 5)):
        with at_step(steps, lambda: disk.follow(replace(FULL, paths=paths))), pytest.raises(RunError):  # noqa: B023
            run(folder.path, **settings)
        assert disk.mend() > 0
        assert folder.state == "unfinished"
    run(folder.path, **settings)
    assert_finished(folder, straight)
