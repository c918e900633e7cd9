"""Trackers: metrics.jsonl without what a kill made twice, plain lines off a terminal, files for Weights & Biases."""

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from faults import refusing_kind, watched
from PIL import Image
from wandb_files import history, inspect

from colordist.config import TrackConfig
from colordist.errors import RunError, UserError
from colordist.tracking import JsonLines, Record, Terminal, Trackers, WandB, has_key, open_wandb, require_tracking, sync


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def records(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_record_is_on_disk_at_once(file: Path) -> None:
    tracker = JsonLines(file, 0)
    tracker.log({"step": 5, "loss/generator/l1": 1 / 3})
    assert records(file) == [{"step": 5, "loss/generator/l1": 1 / 3}]
    tracker.log({"step": 10, "loss/generator/l1": math.nan})
    assert math.isnan(records(file)[1]["loss/generator/l1"])
    tracker.close()


@pytest.mark.parametrize("kind", ["open", "write", "fsync", "replace"])
def test_a_full_disk_at_the_start_is_one_line(kind: str, file: Path) -> None:
    file.write_text('{"step": 5}\n{"step": 10}\n')
    told = r"metrics\.jsonl can't be written \(No space left on device\): once it can be, the same command continues$"
    with watched(refusing_kind(kind)), pytest.raises(RunError, match=told):
        JsonLines(file, 5)
    assert records(file) == [{"step": 5}, {"step": 10}]


def test_a_full_disk_is_one_line_and_the_line_before_it_whole(file: Path) -> None:
    full = False
    with watched(lambda name: refusing_kind("write")(name) if full else None):
        tracker = JsonLines(file, 0)
        tracker.log({"step": 5})
        full = True
        with pytest.raises(RunError, match=r"metrics\.jsonl can't be written \(No space left on device\)"):
            tracker.log({"step": 10, "loss/generator/l1": 1 / 3})
        tracker.close()  # nothing is tried again
    assert file.read_text().startswith('{"step": 5}\n{"ste')
    continued = JsonLines(file, 5)
    continued.log({"step": 10})
    continued.close()
    assert records(file) == [{"step": 5}, {"step": 10}]


def test_what_is_done_again_is_dropped(file: Path) -> None:
    first = JsonLines(file, 0)
    for step in (5, 10, 15, 20):
        first.log({"step": step})
    first.close()
    second = JsonLines(file, 10)
    second.log({"step": 15, "again": 1})
    second.close()
    assert records(file) == [{"step": 5}, {"step": 10}, {"step": 15, "again": 1}]


@pytest.mark.parametrize(
    "end", ["", '{"step": 10, "gen', '{"step": 10, "loss/generator/l1": 0.', "{", '{"ste\n', "\0\0\0"]
)
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
    "pace/images_per_second": 100.0,
    "loss/generator/l1": 0.12345,
    "optimizer/generator/lr": 0.001,
    "diagnostics/generator/gradient_norm": 3.0,
    "diagnostics/generator/skipped": 0.0,
    "diagnostics/discriminator/accuracy_real": 0.75,
}


def test_plain_lines_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal(steps=100, start=0)
    terminal.log(RECORD)
    terminal.log({"step": 20, "images": 640, "score/mae": 5.0})  # scores come at the end
    terminal.log(RECORD | {"diagnostics/generator/skipped": 2.0})
    terminal.close()
    said = capsys.readouterr()
    # 80 steps of 32 images to go, 100 images a second: 25.6 s.
    first, second = said.out.splitlines()
    assert first == "step 20/100 100 images/s 26 s left generator/l1 0.1235"
    assert second == f"{first} diagnostics/generator/skipped 2.0000"
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

        def flush(self) -> None:
            self.calls.append("flushed")

        def picture(self, file: Path, step: int) -> None:
            self.calls.append((file, step))

        def snapshot(self, folder: Path, step: int) -> None:
            self.calls.append(("snapshot", folder, step))

        def close(self) -> None:
            self.calls.append("closed")

    two = [Recorder(), Recorder()]
    trackers = Trackers([*two])
    trackers.log({"step": 1})
    trackers.flush()
    trackers.picture(tmp_path, 1)
    trackers.snapshot(tmp_path, 1)
    trackers.close()
    assert two[0].calls == two[1].calls == [{"step": 1}, "flushed", (tmp_path, 1), ("snapshot", tmp_path, 1), "closed"]


def test_a_tracker_that_fails_keeps_no_record_from_the_others(file: Path) -> None:
    first, second = JsonLines(file, 0), JsonLines(file.with_name("second.jsonl"), 0)
    with watched(refusing_kind("write")), pytest.raises(RunError, match="No space left on device"):
        first.log({"step": 5})
    trackers = Trackers([first, second])
    trackers.log({"step": 10})
    assert records(file) == [{"step": 5}, {"step": 10}]  # also what couldn't be written before, whole
    with watched(refusing_kind("open")), pytest.raises(RunError):
        trackers.log({"step": 15})
    trackers.flush()
    assert records(file) == [{"step": 5}, {"step": 10}, {"step": 15}]
    assert records(file.with_name("second.jsonl")) == [{"step": 10}, {"step": 15}]


# --- Weights & Biases: real runs, offline, read back with its own reader


@pytest.fixture(autouse=True)
def _quiet_wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("WANDB_SILENT", "true")
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for folder in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(folder, str(tmp_path / folder))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    yield
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()


def follow_steps(folder: Path, start: int, steps: list[int], **settings: Any) -> None:  # noqa: ANN401  any setting
    """Log these steps as a run does that begins or continues with a step."""
    folder.mkdir(exist_ok=True)
    written = JsonLines(folder / "metrics.jsonl", start)
    there = WandB(TrackConfig(**({"wandb": "offline"} | settings)), folder, {"seed": 3})
    for step in steps:
        for tracker in (written, there):
            tracker.log({"step": step, "loss/generator/l1": 1 / step})
    there.close()
    written.close()


def test_offline_run_holds_what_was_logged_once_and_in_order(tmp_path: Path) -> None:
    follow_steps(tmp_path / "run", 0, [1, 2, 3])
    assert history(tmp_path / "run") == [
        {"_step": step - 1, "step": step, "loss/generator/l1": 1 / step} for step in (1, 2, 3)
    ]


def test_a_continued_run_logs_nothing_twice(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    follow_steps(folder, 0, [1, 2, 3])  # killed after step 3; the last checkpoint is of step 1
    follow_steps(folder, 1, [2, 3, 4])
    assert [row["step"] for row in history(folder)] == [1, 2, 3, 4]
    assert [row["_step"] for row in history(folder)] == [0, 1, 2, 3]
    assert len({path.name.split("-")[3] for path in folder.glob("wandb/offline-run-*")}) == 1


def test_what_was_kept_back_is_sent_when_the_run_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    written = JsonLines(folder / "metrics.jsonl", 0)
    written.log({"step": 1, "loss/generator/l1": 1.0})
    written.close()
    follow_steps(folder, 1, [2])
    assert [row["step"] for row in history(folder)] == [1, 2]


def test_pictures_and_their_colours_are_sent_with_the_scores(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    picture = folder / "grid.png"
    grid = Image.new("RGB", (4, 12), (128, 128, 128))  # grey all over, but for the target
    grid.paste((255, 0, 0), (0, 8, 4, 12))
    grid.save(picture)
    tracker = WandB(TrackConfig(wandb="offline"), folder, {})
    tracker.log({"step": 5, "score/mae": 0.5})
    tracker.picture(picture, 5)
    tracker.log({"step": 10})
    tracker.close()
    (kept,) = folder.glob("wandb/offline-run-*/files/media/images/*.png")
    assert kept.read_bytes() == picture.read_bytes()
    row, after = history(folder)
    assert after == {"_step": 1, "step": 10}
    assert (row["_step"], row["step"], row["score/mae"]) == (0, 5, 0.5)
    for name, a, b in (("prediction", 0, 0), ("target", 80.1, 67.2)):  # Lab of grey, and of red
        for channel, value in (("a", a), ("b", b)):
            shares, edges = (row[f"histogram/{name}/{channel}.{part}"] for part in ("values", "bins"))
            assert [share for share in shares if share] == [100]
            place = shares.index(100)
            assert edges[place] < value < edges[place + 1]


@pytest.mark.parametrize("wanted", [True, False])
def test_snapshots_are_sent_if_wanted_and_the_best_is_named(wanted: bool, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for step in (5, 10, 15):
        (folder / "snapshots" / str(step)).mkdir(parents=True)
        (folder / "snapshots" / str(step) / "model.json").write_text(str(step))
    tracker = WandB(TrackConfig(wandb="offline", snapshots=wanted), folder, {})
    for step, score in ((5, 8.0), (10, 7.0), (15, 9.0)):
        tracker.log({"step": step, "score/ciede2000": score})
        tracker.snapshot(folder / "snapshots" / str(step), step)
    tracker.close()
    aliases = [sorted(record["artifact"]["aliases"]) for record in inspect(folder) if record["type"] == "artifact"]
    assert aliases == ([["best", "latest"], ["best", "latest"], ["latest"]] if wanted else [])


def test_auto_without_a_key_is_offline_and_online_is_refused(tmp_path: Path) -> None:
    follow_steps(tmp_path / "run", 0, [1], wandb="auto")
    assert len(history(tmp_path / "run")) == 1
    with pytest.raises(UserError, match="there is no key: run `wandb login` once") as refused:
        follow_steps(tmp_path / "other", 0, [1], wandb="online")
    assert "\n" not in str(refused.value)


def test_a_server_that_cannot_be_reached_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr("colordist.tracking.weights_and_biases._INIT_TIMEOUT", 2.0)
    follow_steps(tmp_path / "run", 0, [1, 2], wandb="online")
    assert [row["step"] for row in history(tmp_path / "run")] == [1, 2]
    assert caplog.text.count("wandb can't be reached") == 1


def test_a_failure_in_the_middle_is_said_once_and_the_run_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    tracker = WandB(TrackConfig(wandb="offline"), folder, {})
    tracker.log({"step": 1})
    tracker._run.finish()  # from now on it takes nothing
    for step in (2, 3):
        tracker.log({"step": step})
    tracker.close()
    assert caplog.text.count("wandb failed") == 1
    assert json.loads((folder / "wandb.json").read_text())["offline"] == 1  # what is missing is known


@pytest.mark.parametrize("output", ["", "[1]", "no JSON", '{"step": "x"}', "[" * 100_000])
def test_a_continued_run_goes_on_whatever_another_program_prints(
    output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is stored is asked of W&B's own program: if that isn't understood, all is sent again, and counts once."""
    folder = tmp_path / "run"
    program = "colordist.tracking.weights_and_biases.subprocess"
    follow_steps(folder, 0, [1, 2, 3])
    with monkeypatch.context() as patch:
        done = SimpleNamespace(stdout=output)
        patch.setattr(program, SimpleNamespace(run=lambda *_, **__: done))
        follow_steps(folder, 3, [4])
    assert {row["_step"]: row["step"] for row in history(folder)} == {0: 1, 1: 2, 2: 3, 3: 4}


def test_tracking_that_cannot_begin_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "wandb.json").write_text("{")
    assert open_wandb(TrackConfig(wandb="offline"), tmp_path, {}) is None
    (record,) = caplog.records
    assert "wandb failed" in record.message
    assert "the run continues without" in record.message
    assert "\n" not in record.message
    with pytest.raises(UserError, match="there is no key"):
        require_tracking(TrackConfig(wandb="online"))


@pytest.mark.parametrize("host", ["api.wandb.ai", "wandb.lab.org"])
def test_a_key_in_netrc_is_found(host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not has_key()
    (tmp_path / "netrc").write_text(f"machine {host} login user password {'a' * 40}\n")
    monkeypatch.setenv("WANDB_BASE_URL", f"https://{host}")
    assert has_key()
    monkeypatch.setenv("WANDB_BASE_URL", "https://elsewhere.org")
    assert not has_key()


def test_sync_says_what_stands_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    follow_steps(tmp_path / "run", 0, [1, 2])
    with pytest.raises(UserError, match="there is no key"):
        sync(tmp_path / "run", TrackConfig(), {})
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr("colordist.tracking.weights_and_biases._INIT_TIMEOUT", 2.0)
    with pytest.raises(RunError, match="can't be reached") as failed:
        sync(tmp_path / "run", TrackConfig(), {})
    assert "\n" not in str(failed.value)
