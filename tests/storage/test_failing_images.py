"""Images that can't be read, and reports that can't be written or read: one line, and then as if nothing had been."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from disk import BROKEN, FULL, READS, STALE, Disk, Rule
from runs import run
from small_images import SIDE, images
from storage_runs import SETTINGS, assert_finished, at_step, files

from colordist.errors import RunError
from colordist.report import report
from colordist.run.folder import RunFolder

pytestmark = [pytest.mark.storage, pytest.mark.usefixtures("_alone")]

IMAGES = {"data__source": "folder", "data__image_size": SIDE, "data__fraction": 1.0}
BAD_SECTOR = replace(BROKEN, operations=("read",))
TOLD = {BAD_SECTOR: "Input/output error", STALE: "Stale file handle"}


def on_images(disk: Disk, **more: Any) -> dict[str, Any]:  # noqa: ANN401  any setting
    return SETTINGS | IMAGES | {"data__root": str(disk.path / "photos")} | more


@pytest.mark.parametrize(("workers", "rule"), [(0, BAD_SECTOR), (1, STALE)])
def test_images_that_cannot_be_read_during_training_are_one_line(
    workers: int, rule: Rule, disk: Disk, tmp_path: Path
) -> None:
    images(disk.folder / "photos")
    settings = on_images(disk, data__max_memory_gb=0, data__workers=workers)
    settings |= {"train__steps": 16, "evaluate__every": 16}  # more than a worker reads ahead
    straight = run(tmp_path / "straight", **settings)
    with at_step(4, lambda: disk.follow(rule)), pytest.raises(RunError) as ended:
        run(tmp_path / "run", **settings)
    assert TOLD[rule] in str(ended.value)
    assert "\n" not in str(ended.value)
    assert disk.mend() > 0
    assert_finished(run(tmp_path / "run", **settings), straight)


@pytest.mark.parametrize("rule", TOLD)
def test_an_image_that_cannot_be_read_at_the_start_is_not_left_out(rule: Rule, disk: Disk, tmp_path: Path) -> None:
    """The run would be another one, or be refused as one of other images."""
    images(disk.folder / "photos")
    settings = on_images(disk)
    disk.follow(replace(rule, paths="/photos/train/cat/001.jpg"))
    with pytest.raises(RunError) as refused:
        run(tmp_path / "run", **settings)
    assert "photos" in str(refused.value)
    assert TOLD[rule] in str(refused.value)
    disk.mend()
    run(tmp_path / "run", **settings)


def test_a_report_that_cannot_be_written_leaves_the_old_one(disk: Disk, straight: RunFolder) -> None:
    page = disk.path / "report.html"
    report([straight], page)
    before = files(disk.folder)
    for after in (0, 1, 2):
        disk.follow(replace(FULL, after=after))
        with pytest.raises(
            RunError, match=r"^-o \S*report\.html can't be written \(No space left on device\): [^\n]*$"
        ):
            report([straight], page)
        disk.mend()
        assert files(disk.folder) == before


@pytest.mark.parametrize("paths", ["config.yaml", "metrics.jsonl", "samples", "metrics.json$", "finished"])
def test_a_report_of_a_run_that_cannot_be_read_is_one_line(paths: str, disk: Disk, tmp_path: Path) -> None:
    folder = run(disk.path / "run", **SETTINGS)
    disk.follow(Rule(READS, paths=paths, code=STALE.code))
    with pytest.raises(RunError, match=r"can't be read[^\n]* \(Stale file handle\)[^\n]*$"):
        report([folder], tmp_path / "report.html")
    assert list(tmp_path.glob("*.html")) == []
