"""Training on a disk that fails: it ends in one line, and the same command continues as if nothing had happened."""

from dataclasses import replace

import pytest
from disk import BROKEN, FULL, QUOTA, READ_ONLY, STALE, Disk
from runs import run
from storage_runs import SETTINGS, assert_finished, assert_whole, at_step

from colordist.config import RunError
from colordist.run.folder import RunFolder

pytestmark = [pytest.mark.storage, pytest.mark.usefixtures("_alone")]

CONTINUES = r"[^\n]*: once it can be, the same command continues"
FAULTS = {
    "full": (FULL, "No space left on device"),
    "quota": (QUOTA, "Disk quota exceeded"),
    "read-only": (READ_ONLY, "Read-only file system"),
    "broken": (BROKEN, "Input/output error"),
    "stale": (STALE, "Stale file handle"),
}
WRITTEN = {
    "log": "/metrics.jsonl$",
    "checkpoint": "/checkpoints(/|$)",
    "grid": "/samples(/|$)",
    "snapshot": "/snapshots(/|$)",
    "run folder": "",
}


@pytest.mark.parametrize("what", WRITTEN)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_run_ends_in_one_line_and_continues(what: str, fault: str, disk: Disk, straight: RunFolder) -> None:
    folder, (rule, told) = RunFolder(disk.path / "run"), FAULTS[fault]
    with at_step(2, lambda: disk.follow(replace(rule, paths=WRITTEN[what]))), pytest.raises(RunError) as ended:
        run(folder.path, **SETTINGS)
    assert told in str(ended.value)
    assert "\n" not in str(ended.value)
    assert disk.mend() > 0
    assert_whole(folder)
    run(folder.path, **SETTINGS)
    assert_finished(folder, straight)
