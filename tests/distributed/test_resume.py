"""Runs that are killed or stopped, and continued by the same command, are bit-equal to uninterrupted ones.

Compared: weights, optimizer states, EMA weights and records, without speed and memory. Real processes, real signals.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import runs
from helpers import fitting, timm_weights
from image_datasets import saved
from runs import everything, learned, tensors
from small_images import images
from wandb_files import history

from colordist.run.folder import RunFolder, numbered, read_records
from colordist.run.records import PACE
from launch import TINY_GAN, arguments, begin, finish, last_step, ranks, records, several, wait_for

pytestmark = [pytest.mark.dist, pytest.mark.slow]

# Accumulation, warm-ups, schedules, EMA, clipping; intervals without a common multiple, so that some span a checkpoint.
SETTINGS: dict[str, Any] = TINY_GAN | {
    **{"train.micro_batch_size": 3, "train.steps": 14, "train.precision": "fp32", "train.ema_images": 100},
    **{"task.warmup_steps": 3, "optimizer.generator.warmup_steps": 5, "optimizer.generator.schedule": "cosine"},
    **{"log.every": 3, "evaluate.every": 7, "checkpoint.every": 4},
}
KINDS: dict[str, dict[str, Any]] = {
    "autoencoder": {"task.name": "autoencoder"},
    "cgan": {"task.name": "cgan"},
    "cyclegan": {"task.name": "cyclegan", "task.image_buffer_slots": 2},
    "flow": {"task.name": "flow", "task.solver_steps": 2, "task.hints": True},
    "bf16": {"task.name": "cgan", "train.precision": "bf16"},
    "datasets": {"data.source": "datasets", "data.workers": 1, "data.crop": "random", "data.resize": 20},
    "photos": {
        **{"data.source": "folder", "data.image_size": 64, "data.resize": 70, "data.crop": "random"},
        **{"data.max_memory_gb": 0, "data.workers": 1, "task.hints": True},  # streamed
        **{"model.name": "timm_unet", "model.encoder": "test_efficientnet"},
        **{"task.feature_weight": 1.0, "task.feature_model": "test_efficientnet"},
    },
}
ELASTIC = ("cgan", "cyclegan", "flow", "datasets", "photos")
# Networks this small are slower on several cores.
ALONE = [*(["taskset", "-c", str(max(os.sched_getaffinity(0)))] if shutil.which("taskset") else []), sys.executable]
# Long enough to send a signal.
LONG = {"train.steps": 120, "evaluate.every": 60, "log.every": 1, "checkpoint.every": 30, "train.micro_batch_size": 6}


# --- comparison


def newest(run: Path) -> Path:
    return numbered(run / "checkpoints")[-1]


def assert_bit_equal(found: Path, expected: Path) -> None:
    """Assert that checkpoints, snapshots, records (without speed and memory) and markers are equal."""
    one, other = RunFolder(found), RunFolder(expected)
    runs.assert_bit_equal(one, other)
    assert learned(one) == learned(other)
    assert json.loads((found / "finished").read_text()) == json.loads((expected / "finished").read_text())


def distance(one: Path, other: Path) -> float:
    """Largest absolute difference of two runs' weights, optimizer states and EMA weights."""
    first, second = (tensors(everything(RunFolder(run))) for run in (one, other))
    pairs = [(value, second[path]) for path, value in first.items() if path.startswith("/networks/")]
    return max(float((a.double() - b.double()).abs().max()) for a, b in pairs)


# --- killed


def job(run: Path, settings: dict[str, Any], **more: Any) -> dict[str, Any]:  # noqa: ANN401  see mortal.py
    root, weights = run.parents[1], str(run.parents[1] / "weights.safetensors")
    name = "dataset" if settings.get("data.source") == "datasets" else "images"
    common = SETTINGS | {"data.root": str(root / name), "model.weights": weights, "task.feature_weights": weights}
    return {"run": str(run), "settings": fitting(common, settings)} | more


def mortal(folder: Path, jobs: list[dict[str, Any]]) -> str:
    """Write jobs for ``mortal.py`` to a file, and return its path."""
    file = folder / f"jobs-{len(list(folder.glob('jobs-*')))}.json"
    file.write_text(json.dumps(jobs))
    return str(file)


MORTAL = str(Path(__file__).with_name("mortal.py"))


def starts(file: str) -> int:
    return Path(file).with_suffix(".starts").read_text().count("\n")


def alone(folder: Path, jobs: list[dict[str, Any]]) -> int:
    """Run jobs in one process, restarted whenever it is killed. Returns the number of starts."""
    file = mortal(folder, jobs)
    while (done := finish(begin([*ALONE, MORTAL, file]))).returncode == -signal.SIGKILL:
        pass
    assert done.returncode == 0, done.stderr
    return starts(file)


def both(folder: Path, jobs: list[dict[str, Any]], processes: int) -> int:
    """Run jobs in several processes, restarted by the launcher. Returns the number of starts."""
    file = mortal(folder, jobs)
    done = finish(begin([*several(processes), "--max_restarts", "9", MORTAL, file]))
    assert done.returncode == 0, done.stderr
    return starts(file)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of all runs, with images, a dataset of these, and pretrained weights."""
    folder = tmp_path_factory.mktemp("runs")
    timm_weights(folder / "weights.safetensors", "test_efficientnet")
    saved(images(folder / "images", SETTINGS["data.train_images"], SETTINGS["data.test_images"]), folder / "dataset")
    return folder


@pytest.fixture(scope="module")
def killed_alone(folder: Path) -> int:
    """Uninterrupted and killed runs on one process. Returns the number of starts."""
    (folder / "1").mkdir()
    deaths = {
        "autoencoder": [{"ranks": [0], "step": 3}, {"ranks": [0], "step": 8, "operation": 5}],
        "cgan": [{"ranks": [0], "step": 12, "operation": 15}],
        "cyclegan": [{"ranks": [0], "step": 10}],
        "flow": [{"ranks": [0], "step": 7}],
        "bf16": [{"ranks": [0], "step": 6}],
        "datasets": [{"ranks": [0], "step": 7}],
        "photos": [{"ranks": [0], "step": 6}],
    }
    jobs = [job(folder / "1" / f"{kind}-straight", KINDS[kind]) for kind in KINDS]
    jobs += [job(folder / "1" / kind, KINDS[kind], deaths=deaths[kind]) for kind in KINDS]
    return alone(folder, [*jobs, job(folder / "1" / "long", LONG)])


@pytest.fixture(scope="module")
def killed_together(folder: Path) -> int:
    """The same on two processes, and runs that are stopped, to be continued on one."""
    (folder / "2").mkdir()
    deaths = {
        "autoencoder": [{"ranks": [0, 1], "step": 5}],
        "cgan": [{"ranks": [1], "step": 6}],  # one rank only: the other must detect it
        "cyclegan": [{"ranks": [1], "step": 10}],
        "flow": [{"ranks": [1], "step": 6}],
        "bf16": [{"ranks": [0], "step": 8, "operation": 9}],
        "datasets": [{"ranks": [1], "step": 8}],
        "photos": [{"ranks": [1], "step": 9}],
    }
    jobs = [job(folder / "2" / f"{kind}-straight", KINDS[kind]) for kind in KINDS]
    jobs += [job(folder / "2" / kind, KINDS[kind], deaths=deaths[kind]) for kind in KINDS]
    jobs += [job(folder / "2" / "long", LONG | {"log.every": 7})]
    jobs += [job(folder / "2" / f"{kind}-elastic", KINDS[kind], stop=5) for kind in ELASTIC]
    return both(folder, jobs, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kill_changes_nothing(kind: str, killed_alone: int, folder: Path) -> None:
    assert killed_alone == 9
    assert_bit_equal(folder / "1" / kind, folder / "1" / f"{kind}-straight")


@pytest.mark.parametrize("kind", KINDS)
def test_a_kill_changes_nothing_on_two_processes(kind: str, killed_together: int, folder: Path) -> None:
    """The launcher restarts dead processes, but not finished or stopped ones."""
    assert killed_together == 8
    assert_bit_equal(folder / "2" / kind, folder / "2" / f"{kind}-straight")


def test_a_kill_changes_nothing_on_three_processes(folder: Path) -> None:
    """Sums over three processes depend on DDP's buckets, which it rebuilds after its first step."""
    (folder / "3").mkdir()
    kinds = ("cgan", "photos")
    jobs = [job(folder / "3" / f"{kind}-straight", KINDS[kind]) for kind in kinds]
    jobs += [job(folder / "3" / kind, KINDS[kind], deaths=[{"ranks": [2], "step": 6}]) for kind in kinds]
    assert both(folder, jobs, 3) == 3
    for kind in kinds:
        assert_bit_equal(folder / "3" / kind, folder / "3" / f"{kind}-straight")


@pytest.fixture(scope="module")
def there_and_back(folder: Path, killed_together: int) -> None:
    """Runs begun on two processes, continued on one, and finished on two."""
    elastic = {kind: folder / "2" / f"{kind}-elastic" for kind in ELASTIC}
    assert killed_together
    for run in elastic.values():
        first = json.loads((run / "stopped").read_text())
        assert first["reason"] == "so planned"
        assert 5 <= first["step"] < 10  # two processes agree on a step still to come
    alone(folder, [job(run, KINDS[kind], stop=10) for kind, run in elastic.items()])
    for run in elastic.values():
        assert json.loads((run / "stopped").read_text()) == {"step": 10, "reason": "so planned"}
    both(folder, [job(run, KINDS[kind]) for kind, run in elastic.items()], 2)


@pytest.mark.parametrize("kind", ELASTIC)
@pytest.mark.usefixtures("killed_alone", "there_and_back")
def test_from_two_processes_to_one_and_back(kind: str, folder: Path) -> None:
    """The distance to a run on two processes is that of a run on one process."""
    run = folder / "2" / f"{kind}-elastic"
    two, one = folder / "2" / f"{kind}-straight", folder / "1" / f"{kind}-straight"
    assert 0 < distance(run, two) < 3 * distance(one, two)
    assert [line["step"] for line in records(run)] == [line["step"] for line in records(two)]
    for line, expected in zip(records(run), records(two), strict=True):
        assert line == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_a_number_of_processes_that_does_not_fit_is_refused(killed_alone: int, folder: Path) -> None:
    """Each process of such a launch checks it before anything else."""
    run = folder / "1" / "cgan"
    before = newest(run).stat().st_mtime_ns
    of_five = {"WORLD_SIZE": "5", "RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    more = trained(run, KINDS["cgan"] | {"train.steps": 20})
    done = finish(begin([*ALONE, "-m", "colordist.train", *more], **of_five))
    assert done.returncode == 2
    message = "which 5 processes can't share equally: try 10 or 15, or one of 1, 2, 3, 4, 6"
    assert done.stderr.startswith(f"colordist: train.global_batch_size is 12, {message}")
    assert done.stderr.count("\n") == 1
    assert newest(run).stat().st_mtime_ns == before


# --- stopped


def trained(run: Path, settings: dict[str, Any]) -> list[str]:
    return arguments(SETTINGS | settings, run__dir=run)


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """Started processes. They and their children are killed at the end."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
        process.communicate()


def has_reached(run: Path, step: int) -> bool:
    return last_step(run) >= step


def stopped(run: Path) -> dict[str, Any]:
    """Read the marker. Asserts that the newest checkpoint and the last record are of its step."""
    marker: dict[str, Any] = json.loads((run / "stopped").read_text())
    assert newest(run).name == f"step-{marker['step']:06d}"
    assert last_step(run) == marker["step"]
    return marker


@pytest.mark.usefixtures("killed_alone")
def test_every_way_to_stop_a_run(started: list[subprocess.Popen[str]], folder: Path) -> None:
    """One run, stopped repeatedly with exit code 0; then the same command finishes it."""
    run, at = folder / "stopped", 0

    def begin_again(*more: str) -> subprocess.Popen[str]:
        started.append(begin([*ALONE, "-m", "colordist.train", *trained(run, LONG), *more]))
        return started[-1]

    def end(process: subprocess.Popen[str], reason: str) -> None:
        nonlocal at
        done = finish(process)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        marker = stopped(run)
        assert marker["reason"] == reason
        assert at < marker["step"] < 120
        assert done.stderr == f"stopped after step {marker['step']} ({reason}): the same command continues\n"
        at = marker["step"]

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        process = begin_again()
        assert wait_for(lambda: last_step(run) > at, process)
        process.send_signal(number)
        end(process, number.name)
    end(begin_again("--train.max_minutes", "0.001"), "train.max_minutes 0.001")
    (run / "stop").touch()
    end(begin_again(), f"the file {run / 'stop'}")
    assert not (run / "stop").exists()
    assert finish(begin_again()).returncode == 0
    assert_bit_equal(run, folder / "1" / "long")


@pytest.mark.usefixtures("killed_together")
def test_a_signal_to_one_of_two_processes_stops_both(started: list[subprocess.Popen[str]], folder: Path) -> None:
    """Both stop after the same step, and the launcher doesn't restart them."""
    run = folder / "one-of-two"
    more = trained(run, LONG | {"log.every": 7})
    command = [*several(2), "--max_restarts", "2", "-m", "colordist.train", *more]
    started.append(begin(command))
    assert wait_for(lambda: last_step(run) >= 7, started[0])
    ranks(started[0])[1].send_signal(signal.SIGUSR1)
    done = finish(started[0])
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("run folder") == 1  # started once
    marker = json.loads((run / "stopped").read_text())
    assert marker["reason"] == "SIGUSR1"
    assert 7 <= marker["step"] < 120
    assert newest(run).name == f"step-{marker['step']:06d}"
    done = finish(begin(command))
    assert done.returncode == 0, done.stderr
    assert_bit_equal(run, folder / "2" / "long")


def test_wandb_has_each_line_of_a_run_killed_twice_once_and_in_order(
    started: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    """W&B stores lines with a delay, so a kill loses lines there that metrics.jsonl has."""
    run = tmp_path / "run"
    settings = LONG | {"track.wandb": "offline", "train.steps": 60, "evaluate.every": 20, "checkpoint.every": 10}
    quiet = {"WANDB_SILENT": "true"} | {f"WANDB_{kind}_DIR": str(tmp_path / kind) for kind in ("DATA", "CACHE")}
    for death in (17, 38, None):
        process = begin([*ALONE, "-m", "colordist.train", *trained(run, settings)], **quiet)
        started.append(process)
        if death is not None:
            assert wait_for(partial(has_reached, run, death), process)
            process.kill()
        assert finish(process).returncode == (0 if death is None else -signal.SIGKILL)
    rows, written = history(run), read_records(run / "metrics.jsonl")
    assert [row["_step"] for row in rows] == list(range(len(written)))
    assert [row["step"] for row in rows] == [line["step"] for line in written]
    for row, line in zip(rows, written, strict=True):
        kept = {key: value for key, value in line.items() if not key.startswith(PACE)}
        assert {key: row[key] for key in kept} == kept
    shown = [row["step"] for row in rows if "samples.path" in row]
    assert shown == [0, 20, 40, 60]


# --- two writers


@pytest.mark.usefixtures("killed_alone")
def test_two_writers(started: list[subprocess.Popen[str]], folder: Path) -> None:
    """One is suspended, taken for dead, and resumed while its successor trains: it ends and changes nothing."""
    run = folder / "two-writers"
    command = [*ALONE, "-m", "colordist.train", *trained(run, LONG), "--run.heartbeat_timeout", "1"]
    started.append(begin(command))
    old = started[0]
    assert wait_for(lambda: last_step(run) > 3, old)
    old.send_signal(signal.SIGSTOP)
    reached = last_step(run)
    started.append(begin(command))
    new = started[1]
    assert wait_for(lambda: (run / "lock" / "000002.json").exists(), new)
    assert wait_for(lambda: last_step(run) > reached + 3, new)
    old.send_signal(signal.SIGCONT)
    ended = finish(old)
    assert ended.returncode == 1
    message = rf"colordist: process {new.pid} on \S+ has taken over the run in {run}: this one ends here\n"
    assert re.fullmatch(message, ended.stderr)
    done = finish(new)
    assert done.returncode == 0, done.stderr
    assert f"process {old.pid} on" in done.stderr  # it waited for its heartbeat
    assert_bit_equal(run, folder / "1" / "long")
    assert not list((run / "checkpoints").glob("*.damaged-*"))
