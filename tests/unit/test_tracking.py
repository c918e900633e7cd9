"""Trackers: metrics.jsonl without what a kill made twice, plain lines off a terminal, files for Weights & Biases."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from colordist.config import TrackConfig
from colordist.tracking import JsonLines, Record, Terminal, Trackers, WandB


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def records(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_record_is_on_disk_at_once(file: Path) -> None:
    tracker = JsonLines(file, 0)
    tracker.log({"step": 5, "generator/l1": 1 / 3})
    assert records(file) == [{"step": 5, "generator/l1": 1 / 3}]
    tracker.log({"step": 10, "generator/l1": math.nan})
    assert math.isnan(records(file)[1]["generator/l1"])
    tracker.close()


def test_what_is_done_again_is_dropped(file: Path) -> None:
    first = JsonLines(file, 0)
    for step in (5, 10, 15, 20):
        first.log({"step": step})
    first.close()
    second = JsonLines(file, 10)
    second.log({"step": 15, "again": 1})
    second.close()
    assert records(file) == [{"step": 5}, {"step": 10}, {"step": 15, "again": 1}]


@pytest.mark.parametrize("end", ["", '{"step": 10, "gen', '{"step": 10, "generator/l1": 0.', "{", '{"ste\n', "\0\0\0"])
def test_a_last_line_that_was_cut_off_is_dropped(file: Path, end: str) -> None:
    file.write_text('{"step": 5}\n' + end)
    tracker = JsonLines(file, 10)
    tracker.log({"step": 10})
    tracker.close()
    assert records(file) == [{"step": 5}, {"step": 10}]


def test_a_last_line_without_its_end_is_kept(file: Path) -> None:
    file.write_text('{"step": 5}\n{"step": 10}')
    tracker = JsonLines(file, 10)
    tracker.log({"step": 15})
    tracker.close()
    assert records(file) == [{"step": 5}, {"step": 10}, {"step": 15}]


RECORD: Record = {
    "step": 20,
    "images": 640,
    "images_per_second": 100.0,
    "generator/l1": 0.12345,
    "generator/lr": 0.001,
    "generator/gradient_norm": 3.0,
    "discriminator/accuracy_real": 0.75,
}


def test_plain_lines_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal(steps=100, start=0)
    terminal.log(RECORD)
    terminal.log({"step": 20, "images": 640, "scores/mae": 5.0})  # scores come at the end
    terminal.close()
    said = capsys.readouterr()
    # 80 steps of 32 images to go, 100 images a second: 25.6 s.
    assert said.out == "step 20/100 100 images/s 26 s left generator/l1 0.1235\n"
    assert said.err == ""


def test_progress_bar_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    terminal = Terminal(steps=100, start=10)
    terminal.log(RECORD)
    terminal.close()
    said = capsys.readouterr()
    assert said.out == ""
    assert "20/100" in said.err
    assert "generator/l1 0.1235" in said.err


def test_trackers_pass_everything_on(tmp_path: Path) -> None:
    class Recorder:
        def __init__(self) -> None:
            self.calls: list[object] = []

        def log(self, record: Record) -> None:
            self.calls.append(record)

        def picture(self, file: Path, step: int) -> None:
            self.calls.append((file, step))

        def close(self) -> None:
            self.calls.append("closed")

    two = [Recorder(), Recorder()]
    trackers = Trackers([*two])
    trackers.log({"step": 1})
    trackers.picture(tmp_path, 1)
    trackers.close()
    assert two[0].calls == two[1].calls == [{"step": 1}, (tmp_path, 1), "closed"]


# --- Weights & Biases


class FakeRun:
    def __init__(self) -> None:
        self.logged: list[dict[str, Any]] = []

    def define_metric(self, name: str, step_metric: str) -> None:
        assert (name, step_metric) == ("*", "step")

    def log(self, record: dict[str, Any]) -> None:
        self.logged.append(record)

    def finish(self) -> None:
        self.logged.append({"finished": True})


def test_a_continued_run_is_the_same_run_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    asked: list[dict[str, Any]] = []

    def init(**options: Any) -> FakeRun:  # noqa: ANN401  any option
        asked.append(options)
        return FakeRun()

    monkeypatch.setattr(wandb, "init", init)
    for _ in range(2):
        tracker = WandB(TrackConfig(wandb="online", project="mine"), tmp_path, {"seed": 3})
        tracker.log({"step": 1})
        tracker.close()
    first, second = asked
    assert first == second
    assert len(first["id"]) == 8
    assert (first["project"], first["mode"], first["config"], first["resume"]) == (
        "mine",
        "online",
        {"seed": 3},
        "allow",
    )
    (tmp_path / "other").mkdir()
    WandB(TrackConfig(wandb="offline"), tmp_path / "other", {})
    assert asked[2]["mode"] == "offline"
    assert asked[2]["id"] != first["id"]


@pytest.fixture
def quiet_wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for folder in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(folder, str(tmp_path / folder))
    yield
    import wandb

    wandb.teardown()


@pytest.mark.usefixtures("quiet_wandb")
def test_offline_run_writes_files(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    tracker = WandB(TrackConfig(wandb="offline"), folder, {"seed": 3})
    tracker.log({"step": 1, "generator/l1": 0.5})
    tracker.close()
    (written,) = folder.glob("wandb/offline-run-*/*.wandb")
    assert written.stat().st_size > 0
