"""Whole runs that are stopped, or whose disk, checkpoints or run folder are not what they were."""

import errno
import itertools
import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from faults import Fault, refusing_kind, watched
from helpers import alone_on_the_cpu, tiny
from runs import assert_bit_equal, everything, killed_run, learned, run

from colordist.cli.parser import Command
from colordist.data.batch import Batch
from colordist.engine.runtime import Engine
from colordist.errors import RunError, UserError
from colordist.run import checkpoint
from colordist.run.folder import RunFolder, numbered
from colordist.run.lock import Lock
from colordist.tasks.base import Task
from colordist.tracking import JsonLines, Record
from colordist.train import train
from colordist.training.stop_requests import StopRequests

FOUR = {"log__every": 4, "task__warmup_steps": 1}  # an interval of the log spans what happens at steps 1 to 3 and 5


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with alone_on_the_cpu(monkeypatch):
        yield


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The same run without any accident."""
    with pytest.MonkeyPatch.context() as patch, alone_on_the_cpu(patch):
        return run(tmp_path_factory.mktemp("runs") / "straight", **FOUR)


def assert_same(found: RunFolder, expected: RunFolder) -> None:
    assert found.is_finished(6)
    assert learned(found) == learned(expected)
    assert_bit_equal(expected, found)


def is_silent(folder: RunFolder) -> bool:
    """Whether nobody holds the run folder any more."""
    (file,) = (folder.path / "lock").glob("*.json")
    return bool(json.loads(file.read_text())["released"])


# --- asked to stop


class AfterSteps(StopRequests):
    """Asked to stop when a step has been done."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.left = step

    def reason(self, file: Path | None = None, max_minutes: float | None = None) -> str | None:
        self.left -= 1
        return "the boss" if self.left == 0 else None


@pytest.mark.parametrize("step", [1, 3, 5])  # at 3 there is a checkpoint anyway
def test_a_stopped_run_goes_on_as_if_nothing_had_been(step: int, straight: RunFolder, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    train(Command(tiny(run__dir=str(folder.path), **FOUR), Path("tiny.yaml"), False), AfterSteps(step))
    assert json.loads((folder.path / "stopped").read_text()) == {"step": step, "reason": "the boss"}
    assert numbered(folder.checkpoints)[-1].name == f"step-{step:06d}"
    assert is_silent(folder)
    run(folder.path, **FOUR)
    assert not (folder.path / "stopped").exists()
    assert_same(folder, straight)


def test_the_last_step_is_not_the_place_to_stop(straight: RunFolder, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    train(Command(tiny(run__dir=str(folder.path), **FOUR), Path("tiny.yaml"), False), AfterSteps(6))
    assert_same(folder, straight)


def test_the_stop_file_is_gone_when_it_has_been_obeyed(straight: RunFolder, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.stop_file.touch()
    requests = StopRequests()
    requests._polled -= 10
    train(Command(tiny(run__dir=str(folder.path), **FOUR), Path("tiny.yaml"), False), requests)
    told = {"step": 1, "reason": f"the file {folder.stop_file}"}
    assert json.loads((folder.path / "stopped").read_text()) == told
    assert not folder.stop_file.exists()
    run(folder.path, **FOUR)
    assert_same(folder, straight)


# --- a disk that refuses


@contextmanager
def broken_disk(at_step: int, fault: Fault) -> Iterator[None]:
    """The disk fails while the checkpoint of one step is written. Training waits: it would meet the same disk."""
    real = checkpoint.save

    def save(folder: Path, step: int, *rest: Any) -> None:  # noqa: ANN401  the real one's
        with watched(fault if step == at_step else lambda name: None):
            real(folder, step, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "save", save)
        patch.setattr(checkpoint.Writer, "check", checkpoint.Writer.wait)
        yield


@pytest.mark.parametrize("kind", ["mkdir", "open", "write", "fsync", "rename"])
def test_a_run_stops_where_a_checkpoint_cannot_be_written(kind: str, straight: RunFolder, tmp_path: Path) -> None:
    folder, every = RunFolder(tmp_path / "run"), {"checkpoint__every": 2, "checkpoint__keep": 1}
    told = r"step-000004 can't be written \(Disk quota exceeded\): once it can be, the same command continues$"
    with broken_disk(4, refusing_kind(kind, errno.EDQUOT)), pytest.raises(RunError, match=told):
        run(folder.path, **FOUR, **every)
    assert [path.name for path in numbered(folder.checkpoints)] == ["step-000002"]
    assert is_silent(folder)
    run(folder.path, **FOUR, **every)
    assert_same(folder, straight)


def test_or_warns_and_goes_on(straight: RunFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with broken_disk(2, refusing_kind("write")):
        folder = run(tmp_path / "run", **FOUR, checkpoint__every=2, checkpoint__on_error="warn")
    assert "step-000002 can't be written (No space left on device)" in caplog.text
    assert_same(folder, straight)


def test_metrics_on_a_full_disk_are_one_line(
    straight: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, full = JsonLines.log, False

    def log(lines: JsonLines, record: Record) -> None:
        nonlocal full
        full = record["step"] == 4
        try:
            real(lines, record)
        finally:
            full = False

    def fault(name: str) -> None:
        if full and threading.current_thread() is threading.main_thread():  # not a checkpoint's
            refusing_kind("write")(name)

    folder, told = RunFolder(tmp_path / "run"), r"metrics\.jsonl can't be written \(No space left on device\)"
    with monkeypatch.context() as patch, watched(fault):
        patch.setattr(JsonLines, "log", log)
        with pytest.raises(RunError, match=told):
            run(folder.path, **FOUR)
    assert not folder.metrics_file.read_text().endswith("\n")  # half a line is left
    assert is_silent(folder)
    run(folder.path, **FOUR)
    assert_same(folder, straight)


def test_lines_are_on_the_disk_before_the_checkpoint_that_counts_on_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power failure could leave a checkpoint, and no trace of the steps before it."""
    fsync, rename = os.fsync, os.rename
    on_disk, lost = b"", []

    def noting_fsync(descriptor: int) -> None:
        nonlocal on_disk
        fsync(descriptor)
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path.name == "metrics.jsonl":
            on_disk = path.read_bytes()

    def noting_rename(source: Path, target: Path) -> None:
        if target.parent.name == "checkpoints" and ".tmp-" not in target.name:
            step, lines = int(target.name.removeprefix("step-")), target.parents[1] / "metrics.jsonl"
            due = [line for line in lines.read_bytes().splitlines() if json.loads(line)["step"] <= step]
            lost.append(len(set(due) - set(on_disk.splitlines())))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(os, "rename", noting_rename)
    run(tmp_path / "run", log__every=1, evaluate__every=2, checkpoint__every=1)
    assert lost == [0] * 6


@pytest.mark.parametrize("what", ["samples", "snapshots"])
def test_what_people_look_at_on_a_full_disk_is_one_line(what: str, straight: RunFolder, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.write_settings(tiny(run__dir=str(folder.path), **FOUR))  # begun, and killed at once
    (folder.path / what).write_text("in the way")
    with pytest.raises(RunError, match=rf"{what}\S* can't be (written|read)"):
        run(folder.path, **FOUR)
    (folder.path / what).unlink()
    run(folder.path, **FOUR)
    assert_same(folder, straight)


# --- damaged checkpoints


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def test_a_damaged_checkpoint_costs_steps_and_nothing_else(
    straight: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    every = {"checkpoint__every": 1, "checkpoint__keep": 3}
    broken = killed_run(tmp_path / "run", monkeypatch, at=4, **FOUR, **every)
    damaged = numbered(broken.checkpoints)[-1]
    flip(damaged / "state.pt")
    (broken.checkpoints / "step-000009").mkdir()  # and nothing in it
    run(broken.path, **FOUR, **every)
    assert f"{damaged} is damaged (state.pt is not what was written), so the run continues from" in caplog.text
    assert (broken.checkpoints / f"{damaged.name}.damaged-0").is_dir()
    assert_same(broken, straight)


def test_a_start_that_is_refused_changes_nothing(straight: RunFolder, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(straight.path, folder.path, symlinks=True)
    for path in numbered(folder.checkpoints):
        flip(path / "state.pt")
    before = contents(folder)
    for _ in range(2):  # also not that it may be tried again
        with pytest.raises(UserError, match="all checkpoints are damaged"):
            run(folder.path, **FOUR, train__steps=8)
        assert is_silent(folder)
        assert contents(folder) == before


def contents(folder: RunFolder) -> dict[Path, bytes]:
    files = (path for path in folder.path.rglob("*") if path.is_file() and path.parent.name != "lock")
    return {path: path.read_bytes() for path in files}


# --- another writer


def test_whoever_is_fenced_off_touches_nothing_more(
    straight: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process takes over at each step in turn, and its run is whole: this one ends with a line."""
    real = Engine.step
    settings = {**FOUR, "log__every": 1, "evaluate__every": 2, "checkpoint__every": 2}
    for at in range(7):
        folder, before = RunFolder(tmp_path / str(at)), {}

        def step(engine: Engine, task: Task, batches: list[Batch], step: int) -> object:
            if step == at:  # noqa: B023
                take_over(folder)  # noqa: B023
                before.update(contents(folder))  # noqa: B023
            return real(engine, task, batches, step)

        with monkeypatch.context() as patch:
            patch.setattr(Engine, "step", step)
            if at == 6:  # never
                run(folder.path, **settings)
                continue
            with pytest.raises(RunError, match=r"process 1 on elsewhere has taken over the run in .*: this one ends"):
                run(folder.path, **settings)
        unfinished = {path for path in contents(folder) if ".tmp-" in str(path)}  # of no harm to anybody
        assert {path: data for path, data in contents(folder).items() if path not in unfinished} == {
            path: data for path, data in before.items() if ".tmp-" not in str(path)
        }


def test_a_run_that_another_has_taken_over_is_not_marked_as_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, real = RunFolder(tmp_path / "run"), checkpoint.Writer.wait

    def wait(writer: checkpoint.Writer) -> None:
        real(writer)
        if (folder.checkpoints / "step-000006").exists() and len(list((folder.path / "lock").iterdir())) == 1:
            take_over(folder)

    monkeypatch.setattr(checkpoint.Writer, "wait", wait)
    with pytest.raises(RunError, match="has taken over the run"):
        run(folder.path, **FOUR)
    assert folder.state == "unfinished"


def take_over(folder: RunFolder) -> None:
    """What another process would leave."""
    (file,) = (folder.path / "lock").glob("*.json")
    about = json.loads(file.read_text()) | {"host": "elsewhere", "pid": 1}
    (file.parent / f"{int(file.stem) + 1:06d}.json").write_text(json.dumps(about))


def test_a_run_that_is_alive_is_not_run_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colordist.run.lock.HEARTBEAT", 0.05)
    lock = Lock.acquire(tmp_path / "run", 30)
    with pytest.raises(UserError, match=r"process \d+ on .* is writing into .*: end it first"):
        run(tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    lock.release()
    assert run(tmp_path / "run").is_finished(6)


def test_every_writer_has_a_higher_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fences = []
    for at in (3, 4):
        folder = killed_run(tmp_path / "run", monkeypatch, at=at)
        manifest = numbered(folder.checkpoints)[-1] / "manifest.json"
        fences.append(json.loads(manifest.read_text())["fence"])
    run(folder.path)
    fences += [json.loads((path / "manifest.json").read_text())["fence"] for path in numbered(folder.checkpoints)[-1:]]
    assert fences == [1, 1, 3]
    assert all(a <= b for a, b in itertools.pairwise(fences))
    assert everything(folder)["/step"] == 6
