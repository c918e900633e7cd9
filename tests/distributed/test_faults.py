"""A rank that differs, dies, freezes, hangs or fails: all others stop, and one line names it."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from launch import LAUNCHER, TINY, arguments, records

pytestmark = [pytest.mark.dist, pytest.mark.slow]

WORKER = [sys.executable, str(Path(__file__).with_name("faulty_worker.py"))]
HOST = socket.gethostname()
HEARTBEAT_TIMEOUT, STALL_TIMEOUT = 4, 6
UNRESPONSIVE = f"has not responded for {HEARTBEAT_TIMEOUT} s"


class Run:
    """Processes that train together, each with its own standard error."""

    def __init__(self, commands: list[list[str]], environments: list[dict[str, str]], folder: Path) -> None:
        self.folder = folder / "run"
        self.errors = [folder / f"stderr-{number}" for number in range(len(commands))]
        self.processes = [
            subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=error.open("w"))
            for command, environment, error in zip(commands, environments, self.errors, strict=True)
        ]

    def codes(self, *numbers: int) -> list[int]:
        """Wait for some processes, and return their exit codes."""
        return [self.processes[number].wait(timeout=120) for number in numbers]

    def messages(self, number: int) -> list[str]:
        """colordist's messages on a process's standard error."""
        return [line for line in self.errors[number].read_text().splitlines() if line.startswith("colordist:")]


def port() -> str:
    """A free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def trained(folder: Path) -> list[str]:
    """Arguments of a run with short timeouts."""
    fast = {"run__heartbeat_timeout": HEARTBEAT_TIMEOUT, "run__stall_timeout": STALL_TIMEOUT}
    return arguments(TINY, task__name="autoencoder", run__dir=folder / "run", **fast)


@contextmanager
def running(folder: Path, fault: str, rank: int, step: int = 4, processes: int = 2) -> Iterator[Run]:
    """Start processes without a launcher, which would end all as soon as one ends."""
    command = [*WORKER, str(rank), fault, str(step), *trained(folder)]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port(), "WORLD_SIZE": str(processes)}
    common |= {"LOCAL_WORLD_SIZE": str(processes), "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    ranks = [{"RANK": str(number), "LOCAL_RANK": str(number)} for number in range(processes)]
    environments = [os.environ | common | rank for rank in ranks]
    run = Run([command] * processes, environments, folder)
    try:
        yield run
    finally:
        for process in run.processes:
            process.kill()
            process.wait()


def refute_tracebacks(run: Run, *numbers: int) -> None:
    for number in numbers:
        text = run.errors[number].read_text()
        assert "Traceback" not in text
        assert "frame #" not in text


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("other settings", "has data.seed 7, process 0 on {host} has 0: start all processes with the same command"),
        ("other code", "runs other code than process 0 on {host}: install the same version everywhere"),
    ],
)
def test_other_settings_or_code_are_refused_before_anything_is_written(
    fault: str, message: str, tmp_path: Path
) -> None:
    with running(tmp_path, fault, rank=1) as run:
        assert run.codes(0, 1) == [2, 2]
        line = f"colordist: process 1 on {HOST} {message.format(host=HOST)}"
        for number in (0, 1):
            assert len(run.messages(number)) == 1
            assert run.messages(number)[0].startswith(line)
        refute_tracebacks(run, 0, 1)
        assert not run.folder.exists()


def test_other_weights_are_found_before_they_are_saved(tmp_path: Path) -> None:
    with running(tmp_path, "other weights", rank=1) as run:
        assert run.codes(0, 1) == [1, 1]
        message = f"colordist: the generator's weights on process 1 on {HOST} differ from process 0's at step 6: "
        for number in (0, 1):
            assert [line[: len(message)] for line in run.messages(number)] == [message]
        refute_tracebacks(run, 0, 1)
        assert [path.name for path in (run.folder / "checkpoints").glob("step-*")] == ["step-000003"]


def test_the_others_of_a_killed_process_stop(tmp_path: Path) -> None:
    with running(tmp_path, "killed", rank=1, processes=3) as run:
        assert run.codes(0, 1, 2) == [1, -9, 1]
        (message,) = run.messages(0)
        assert message.startswith(f"colordist: process 1 on {HOST} has ended (it was at step")
        assert message.endswith("): all stop; the same command continues")
        assert run.messages(2) == []
        refute_tracebacks(run, 0, 2)


def test_the_others_of_a_frozen_first_process_stop(tmp_path: Path) -> None:
    """Rank 0 holds the store of the rendezvous."""
    with running(tmp_path, "frozen", rank=0) as run:
        assert run.codes(1) == [1]
        (message,) = run.messages(1)
        assert message.startswith(f"colordist: process 0 on {HOST} {UNRESPONSIVE} (it was at step")
        refute_tracebacks(run, 1)


def test_all_stop_when_one_hangs(tmp_path: Path) -> None:
    with running(tmp_path, "hangs", rank=1) as run:
        assert run.codes(0, 1) == [1, 1]
        assert run.messages(0) == [
            f"colordist: process 1 on {HOST} has made no progress for {STALL_TIMEOUT} s (it was at step 4): all stop; "
            "the same command continues"
        ]
        assert run.messages(1) == []
        refute_tracebacks(run, 0, 1)


def test_the_others_of_one_that_fails_stop(tmp_path: Path) -> None:
    with running(tmp_path, "fails", rank=1) as run:
        assert run.codes(0, 1) == [1, 1]
        assert run.messages(0) == [f"colordist: process 1 on {HOST} has failed (KeyError('planted')): all stop"]
        assert run.messages(1) == []
        refute_tracebacks(run, 0)


def test_a_machine_with_the_first_process_is_lost(tmp_path: Path) -> None:
    """Two launchers, as on two machines. The one that holds the store dies with rank 0."""
    flags = ["--multi_gpu", "--num_machines", "2", "--num_processes", "2", "--main_process_ip", "127.0.0.1"]
    flags += ["--main_process_port", port(), "--rdzv_backend", "static", "--same_network"]
    flags += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    launcher = [*LAUNCHER, *flags, "--machine_rank"]
    worker = [WORKER[1], "0", "killed with its launcher", "4", *trained(tmp_path)]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true"}
    run = Run([[*launcher, str(rank), *worker] for rank in (0, 1)], [environment] * 2, tmp_path)
    assert run.codes(0, 1) == [-9, 1]
    (message,) = run.messages(1)
    assert message.startswith(f"colordist: the launcher of process 0 on {HOST} is gone (it was at step")
    assert records(run.folder)[-1]["step"] == 4
