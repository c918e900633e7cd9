"""A run that is killed at random moments, whose checkpoints are spoiled besides, ends as if nothing had happened."""

import json
import sys
from pathlib import Path

import pytest

from launch import ROOT, begin, finish

pytestmark = [pytest.mark.dist, pytest.mark.slow]


def test_five_kills(tmp_path: Path) -> None:
    told = tmp_path / "chaos.json"
    options = ["--kills", "5", "--seed", "1", "--damage", "--json", str(told)]
    done = finish(begin([sys.executable, str(ROOT / "benchmarks" / "chaos.py"), *options]))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(told.read_text())
    assert (found["kills"], found["starts"]) == (5, 6)
    assert found["at_start"] + found["in_step"] + found["in_write"] == 5
    assert found["damaged"] == found["damaged_found"] > 0
    assert all(found["same"].values())
