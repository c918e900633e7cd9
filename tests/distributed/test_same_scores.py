"""evaluate gives the same bits on any number of processes, also where the images don't divide."""

import json
from pathlib import Path

import pytest

from launch import TINY, start, train

pytestmark = [pytest.mark.dist, pytest.mark.slow]


def test_scores_do_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    """150 images in batches of 64: two whole ones and a rest, so with three processes each has one, with four none."""
    run = tmp_path / "run"
    done = train(*TINY, "--run.dir", str(run), "--train.precision", "fp32")
    assert done.returncode == 0, done.stderr
    found = []
    for processes in (1, 2, 3, 4):
        file = tmp_path / f"{processes}.json"
        done = start("colordist.evaluate", str(run), "--data.test_images", "150", "-o", str(file), processes=processes)
        assert done.returncode == 0, done.stderr
        found.append(json.loads(file.read_text()))
    assert found[0]["images"] == 150
    assert all(each == found[0] for each in found)
