"""The league's tally: what counts as repeated, lost, a stall, a line; its table puts our defeats first."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT

RIVALS = ROOT / "benchmarks" / "rivals"


@pytest.fixture(scope="module")
def modules() -> Iterator[dict[str, Any]]:
    """The league's modules, imported as a benchmark does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        found = {name: importlib.import_module(f"rivals.{name}") for name in ("jobs", "tally", "table")}
        yield found
    for name in [name for name, each in sys.modules.items() if "benchmarks" in str(getattr(each, "__file__", ""))]:
        del sys.modules[name]


Steps = list[tuple[int, int, tuple[int, ...]]]
"""Step, rank and images of each."""


def records(modules: dict[str, Any], attempts: dict[int, Steps]) -> list[Any]:
    """Records by attempt."""
    record = modules["jobs"].Record
    found: list[Any] = []
    for attempt, steps in attempts.items():
        for step, rank, images in steps:
            found.append(record(step, float(len(found)), 1, rank, attempt, images, 0))
    return found


def test_steps_done_again_count_once(modules: dict[str, Any]) -> None:
    """Steps 1 to 3 with two processes, then again from 3 with one; of four images, an epoch is two steps."""
    tally = modules["tally"]
    first: Steps = [(1, 0, (0,)), (1, 1, (1,)), (2, 0, (2,)), (2, 1, (3,)), (3, 0, (1,)), (3, 1, (2,))]
    second: Steps = [(3, 0, (1, 2)), (4, 0, (0, 3))]
    steps = tally.lasting(records(modules, {0: first, 1: second}), survives=False)
    assert [len(steps[step]) for step in (1, 2, 3, 4)] == [2, 2, 1, 1]
    assert tally.repeated_and_lost(steps, images=4, window=2) == (0, 0)


def test_images_are_repeated_and_lost(modules: dict[str, Any]) -> None:
    """An epoch that begins anew after a kill sees 0 and 1 twice, and never 2 and 3."""
    tally = modules["tally"]
    steps = tally.lasting(records(modules, {0: [(1, 0, (0, 1))], 1: [(2, 0, (1, 0))]}), survives=False)
    assert tally.repeated_and_lost(steps, images=4, window=2) == (2, 2)


def test_a_process_that_survives_keeps_its_steps(modules: dict[str, Any]) -> None:
    tally = modules["tally"]
    found = records(modules, {0: [(1, 0, (0,)), (1, 1, (1,)), (2, 0, (2,)), (3, 0, (3,)), (3, 1, (1,))]})
    assert {step: len(each) for step, each in tally.lasting(found, survives=True).items()} == {1: 2, 2: 1, 3: 2}


def test_the_step_under_way_is_not_the_next_one(modules: dict[str, Any]) -> None:
    record = modules["jobs"].Record
    found = [record(step, time, 1, 0, 0, (), 0) for step, time in enumerate((9.9, 10.1, 15.0, 15.2))]
    assert modules["tally"].after_gap(found, killed=10.0) == 15.0


@pytest.mark.parametrize("slow", [0, 1, 2])
def test_a_stall_is_found_wherever_it_falls(modules: dict[str, Any], slow: int) -> None:
    """Steps of one second, a checkpoint every 10; one of the steps from it on takes three."""
    record, time, found = modules["jobs"].Record, 0.0, []
    for step in range(1, 62):
        time += 3.0 if step % 10 == slow else 1.0
        found.append(record(step, time, 1, 0, 0, (), 0))
    assert modules["tally"].stalls(found, 10) == pytest.approx([2.0] * 5)


def test_lines_are_counted_without_comments_docstrings_and_recorders(modules: dict[str, Any], tmp_path: Path) -> None:
    script, settings = tmp_path / "script.py", tmp_path / "settings.yaml"
    script.write_text(
        '"""Doc\nstring."""\n\nimport a  # why\nrecorder = Recorder()\nx = f(\n    """text\n    more""",\n)\n'
    )
    settings.write_text("# comment\ntask:\n  name: cgan # why\n\n")
    assert modules["tally"].lines(script) == 5
    assert modules["tally"].lines(settings) == 2


def test_the_table_begins_with_what_another_does_better(modules: dict[str, Any]) -> None:
    parts = {
        "lines": {"colordist": [{"lines": 20}], "other": [{"lines": 50}]},
        "speed": {
            "colordist": [{"1": 100.0, "2": 150.0}, {"1": 120.0, "2": 150.0}],
            "other": [{"1": 130.0, "2": 140.0}, {"failed": "out of memory"}],
        },
        "elastic": {
            "colordist": [{"difference": 0.2, "unbroken_one_and_two": 0.3, "repeated": 0, "lost": 0}],
            "other": [{"difference": 0.1, "unbroken_one_and_two": 0.3, "repeated": 8, "lost": 8}],
        },
    }
    found = {"parts": parts, "versions": {"torch": "2.14"}, "hardware": "a CPU", "load": 0.5}
    lines = modules["table"].table(found).splitlines()
    assert lines[2].startswith("| **Another is better**")
    assert lines[3] == "| images a second, 1 process | 110 (100 to 120) | **130, 1 failed** |"
    assert lines[4].startswith("| **None is better**")
    assert "| the same, continued on one process | 0.200 | 0.100 |" in lines[5:]  # by rounding: nobody is better
    assert "| images lost by that | **0** | 8 |" in lines[5:]
    assert lines[-3] == "| lines that the user writes | **20** | 50 |"


def test_each_rival_has_a_file(modules: dict[str, Any]) -> None:
    assert all((RIVALS / rival.file).is_file() for rival in modules["jobs"].RIVALS.values())
