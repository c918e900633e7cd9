"""Processes that train together on the null device, through NCCL. Without a launcher, which would end all with one."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from null_build import HERE, environment

TINY: dict[str, Any] = {
    **{"task.name": "cgan", "task.warmup_steps": 1, "discriminator.width": 4, "discriminator.depth": 1},
    **{"data.train_images": 16, "data.test_images": 6, "data.image_size": 16, "model.width": 4, "model.depth": 1},
    **{"train.steps": 6, "train.global_batch_size": 4, "train.precision": "fp32", "log.every": 2},
    **{"evaluate.every": 3, "checkpoint.every": 3},
}
HOST = socket.gethostname()


@dataclass(frozen=True)
class Rank:
    """A process, and where its output goes."""

    process: subprocess.Popen[bytes]
    output: Path

    @property
    def text(self) -> str:
        """Standard output and standard error."""
        return self.output.read_text()

    @property
    def messages(self) -> list[str]:
        """colordist's messages."""
        return [line for line in self.text.splitlines() if line.startswith("colordist:")]

    def code(self, timeout: float = 200) -> int:
        """Wait for its exit code."""
        return self.process.wait(timeout)

    def kill(self) -> None:
        """Kill it and wait for its end."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@contextmanager
def ranks(
    library: Path,
    folder: Path,
    settings: dict[str, Any],
    *,
    program: Sequence[str] = ("null_device", "colordist.train"),
    devices: int = 2,
    variables: Mapping[str, str] | None = None,
) -> Iterator[list[Rank]]:
    """Start two processes of a run in ``folder / "run"``.

    program: a script of this folder and its first arguments; devices: that each sees; variables: environment's.
    """
    folder.mkdir(exist_ok=True)
    found: list[Rank] = []
    (folder / "nccl").unlink(missing_ok=True)
    common = environment(library, devices, NULL_NCCL_FILE=str(folder / "nccl"), **rendezvous()) | dict(variables or {})
    arguments = [f"--{key}={value}" for key, value in settings.items()] + [f"--run.dir={folder}/run"]
    for rank in range(2):
        output = folder / f"output-{rank}"
        process = subprocess.Popen(
            [sys.executable, str(HERE / f"{program[0]}.py"), *program[1:], *arguments],
            env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=output.open("w"),
            stderr=subprocess.STDOUT,
        )
        found.append(Rank(process, output))
    try:
        yield found
    finally:
        for each in found:
            each.kill()


def rendezvous() -> dict[str, str]:
    """The variables that a launcher sets for both processes, with a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}


def records(folder: Path) -> list[dict[str, float]]:
    """Complete lines of metrics.jsonl."""
    with suppress(FileNotFoundError):
        return [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().split("\n")[:-1]]
    return []


def wait_for_step(folder: Path, step: int, group: Sequence[Rank], timeout: float = 200) -> None:
    """Wait until a step is logged. Fails if a process ends before."""
    deadline = time.monotonic() + timeout
    while not any(line["step"] >= step for line in records(folder)):
        assert all(rank.process.poll() is None for rank in group), "\n".join(rank.text for rank in group)
        assert time.monotonic() < deadline, "\n".join(rank.text for rank in group)
        time.sleep(0.05)
