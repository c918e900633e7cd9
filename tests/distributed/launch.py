"""Starts verbs in one process or several, by the launcher, as a user would."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from helpers import clean_environment
from runs import learned

from colordist.run.folder import RunFolder

# Small, so quick. Tests add or override settings.
TINY: dict[str, Any] = {
    **{"data.train_images": 40, "data.test_images": 19, "data.image_size": 16, "model.width": 4, "model.depth": 2},
    **{"train.global_batch_size": 12, "train.steps": 6, "train.precision": "fp64"},
    "optimizer.generator.clip_norm": 1.0,
    **{"log.every": 2, "evaluate.every": 3, "checkpoint.every": 3},
}
# With a discriminator, and more that could make processes differ.
TINY_GAN: dict[str, Any] = TINY | {
    **{"discriminator.width": 4, "discriminator.depth": 2, "task.warmup_steps": 1},
    **{"optimizer.discriminator.schedule": "linear"},
}

# One process. Networks this small are slower on several cores.
ALONE = [*(["taskset", "-c", str(max(os.sched_getaffinity(0)))] if shutil.which("taskset") else []), sys.executable]
LAUNCHER = (sys.executable, "-m", "accelerate.commands.launch")
# All values given, so that accelerate has nothing to guess.
GIVEN = ("--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0")

TIMEOUT = 300.0  # seconds

Finished = subprocess.CompletedProcess[str]


def arguments(settings: Mapping[str, Any], **more: Any) -> list[str]:  # noqa: ANN401  any setting
    """Convert settings by dotted key to command-line arguments. more: overrides, as ``run__dir=...``."""
    given = {**settings, **{key.replace("__", "."): value for key, value in more.items()}}
    return [f"--{key}={value}" for key, value in given.items()]


def several(processes: int) -> list[str]:
    """The launcher's command for several processes, without what they run."""
    return [*LAUNCHER, "--num_processes", str(processes), *GIVEN, "--multi_gpu"]


def begin(command: Sequence[str], **environment: str) -> subprocess.Popen[str]:
    """Start a command."""
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment() | environment,
    )


def finish(process: subprocess.Popen[str], timeout: float = TIMEOUT) -> Finished:
    """Wait for a command. After the timeout it is terminated; a launcher forwards the signal to its processes."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.terminate()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def wait_for(event: Callable[[], bool], process: subprocess.Popen[Any]) -> bool:
    """Poll until an event has happened. Returns False if the process ended before."""
    deadline = time.monotonic() + TIMEOUT
    while not event():
        if process.poll() is not None:
            return False
        assert time.monotonic() < deadline, f"nothing has happened for {TIMEOUT:.0f} s"
        time.sleep(0.001)
    return process.poll() is None


def last_step(run: Path) -> int:
    """The step of the last complete line of metrics.jsonl, -1 without one. Cheap enough for polling."""
    try:
        with (run / "metrics.jsonl").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 8192))
            return int(json.loads(file.read().split(b"\n")[-2])["step"])
    except (FileNotFoundError, IndexError):
        return -1


def ranks(launcher: subprocess.Popen[Any]) -> dict[int, psutil.Process]:
    """A launcher's worker processes, by rank."""
    found = {}
    for child in psutil.Process(launcher.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess, KeyError):
            found[int(child.environ()["RANK"])] = child
    return found


def launch(flags: Sequence[str], module: str, *arguments: str, **environment: str) -> Finished:
    """Run ``accelerate launch FLAGS -m MODULE ARGUMENTS``."""
    return finish(begin([*LAUNCHER, *flags, "-m", module, *arguments], **environment))


def start(
    module: str, *arguments: str, processes: int = 1, flags: Sequence[str] = ("--multi_gpu",), **environment: str
) -> Finished:
    """Run a verb on a number of processes, to its end."""
    launcher = ["--num_processes", str(processes), *GIVEN, *(flags if processes > 1 else ())]
    return launch(launcher, module, *arguments, **environment)


def train(*arguments: str, processes: int = 1, flags: Sequence[str] = ("--multi_gpu",), **environment: str) -> Finished:
    """Run the trainer on a number of processes, to its end."""
    return start("colordist.train", *arguments, processes=processes, flags=flags, **environment)


def work(jobs: list[dict[str, Any]], folder: Path, processes: int) -> None:
    """Run jobs of ``worker.py`` one after the other, in one launch."""
    file = folder / f"jobs-{processes}.json"
    file.write_text(json.dumps(jobs))
    worker = [str(Path(__file__).with_name("worker.py")), str(file)]
    done = finish(begin([*(several(processes) if processes > 1 else [sys.executable]), *worker]), timeout=600)
    assert done.returncode == 0, done.stderr


def records(run: Path) -> list[dict[str, Any]]:
    """Records of metrics.jsonl without speed, memory and traffic."""
    return learned(RunFolder(run))
