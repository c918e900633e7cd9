"""Chaos testing: kills a run at random moments and restarts it with the same command.

Small, real runs of ``colordist.train``, and SIGKILL: in half of the cases while a checkpoint is being written, else in
a step, rarely during start-up. With several processes it kills all of them, launcher included, or a single one.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
from helpers import ROOT, clean_environment, fitting

from colordist.run.folder import numbered
from launch import TIMEOUT, arguments, last_step, ranks, several, wait_for

Moment = Literal["start", "step", "write"]
# Small, with all features that have a state: accumulation, EMA, warm-ups, schedules, clipping.
SETTINGS = {
    **{"data.train_images": 64, "data.test_images": 16, "data.image_size": 16, "train.precision": "fp32"},
    **{"model.width": 8, "model.depth": 2, "discriminator.width": 8, "discriminator.depth": 2},
    **{"train.global_batch_size": 8, "train.micro_batch_size": 2, "train.ema_images": 200, "task.warmup_steps": 10},
    **{"optimizer.generator.schedule": "cosine", "optimizer.discriminator.schedule": "linear"},
    **{"optimizer.generator.clip_norm": 1.0, "checkpoint.every": 4, "checkpoint.keep": 3, "evaluate.every": 50},
}


@dataclass(frozen=True)
class Kill:
    """A planned kill."""

    moment: Moment
    step: int
    """The earliest step; unused for a kill at the start."""
    delay: float
    """Seconds to wait at that moment."""
    rank: int | None
    """The rank to kill; None for all processes."""
    damage: bool
    """Whether to damage the newest checkpoint afterwards."""


def draw_kills(kills: int, seed: int, steps: int, processes: int, *, damage: bool) -> list[Kill]:
    """Draw all kills of a run, in order, within the first four fifths of its steps."""
    dice = random.Random(seed)
    longest = {"start": 8.0, "step": 0.1, "write": 0.01}
    moments: list[Moment] = ["start", "step", "write"]
    found = []
    for step in sorted(dice.randrange(steps * 4 // 5) for _ in range(kills)):
        (moment,) = dice.choices(moments, [1, 4, 5])
        alone = processes > 1 and moment != "start" and dice.random() < 0.5
        rank = dice.randrange(processes) if alone else None
        found.append(Kill(moment, step, dice.random() * longest[moment], rank, damage and dice.random() < 0.3))
    return found


@dataclass
class Run:
    """A run to be killed and restarted."""

    folder: Path
    task: str
    steps: int
    processes: int

    def start(self) -> subprocess.Popen[bytes]:
        """Start or continue the run by the same command. Its output goes to a file."""
        settings = fitting(SETTINGS, {"task.name": self.task})
        launch = [sys.executable] if self.processes == 1 else several(self.processes)
        more = arguments(settings, train__steps=self.steps, log__every=1, run__dir=self.folder)
        command = [*launch, "-m", "colordist.train", *more]
        cores = sorted(os.sched_getaffinity(0))[-self.processes :]  # networks this small are slower on several
        with self.said.open("wb") as said:
            started = subprocess.Popen(
                command, stdout=said, stderr=subprocess.STDOUT, cwd=ROOT, env=clean_environment()
            )
        os.sched_setaffinity(started.pid, cores)
        return started

    @property
    def said(self) -> Path:
        """Output of the latest start."""
        return self.folder.with_suffix(".txt")

    @property
    def checkpoints(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return numbered(self.folder / "checkpoints")

    def checkpoint_step(self) -> int:
        """The step of the newest checkpoint, 0 without one."""
        return int(self.checkpoints[-1].name.removeprefix("step-")) if self.checkpoints else 0

    def is_writing(self) -> bool:
        """Whether there is an unfinished checkpoint."""
        return any((self.folder / "checkpoints").glob("step-*.tmp-*"))

    def finish(self) -> None:
        """Start or continue the run, to its end."""
        assert self.start().wait(TIMEOUT) == 0, self.said.read_text()


def seconds(count: float) -> Callable[[], bool]:
    """A condition that becomes true after some seconds."""
    end = time.monotonic() + count
    return lambda: time.monotonic() > end


def die(run: Run, kill: Kill) -> bool:
    """Start a run and kill it as planned. Returns False if it ended before."""
    process, begin = run.start(), last_step(run.folder)
    if kill.moment == "start":
        over = seconds(kill.delay)
        if not wait_for(lambda: over() or last_step(run.folder) > begin, process):
            return False
        os.kill(process.pid, signal.SIGSTOP)  # so that a launcher starts no more processes
        hit = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
    else:
        if not wait_for(lambda: last_step(run.folder) > max(begin, kill.step), process):
            return False
        hit = [process.pid] if run.processes == 1 else [each.pid for _, each in sorted(ranks(process).items())]
        hit = [*hit, process.pid] if kill.rank is None else [hit[kill.rank]]
        if kill.moment == "write" and not wait_for(run.is_writing, process):
            return False
        if not wait_for(seconds(kill.delay), process):
            return False
    for pid in hit:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait(TIMEOUT)  # after the kill of one rank, the others and the launcher must end by themselves
    return True


def spoil(checkpoint: Path, dice: random.Random) -> None:
    """Damage a checkpoint: flip a bit, truncate a file or remove it."""
    file = checkpoint / dice.choice(["state.pt", "manifest.json"])
    data = bytearray(file.read_bytes())
    offset = dice.randrange(len(data))
    match dice.choice(["flip", "cut", "lose"]):
        case "flip":
            data[offset] ^= 1 << dice.randrange(8)
            file.write_bytes(data)
        case "cut":
            file.write_bytes(data[:offset])
        case "lose":
            file.unlink()


@dataclass
class Count:
    """Counts of kills and their consequences."""

    kills: int = 0
    at_start: int = 0
    in_step: int = 0
    in_write: int = 0
    """Kills that left an unfinished checkpoint."""
    of_one_process: int = 0
    lost_steps: int = 0
    most_lost: int = 0
    damaged: int = 0
    damaged_found: int = 0


def torment(run: Run, kills: list[Kill], seed: int) -> Count:
    """Kill a run as planned, then run it to its end."""
    count, dice = Count(), random.Random(seed)
    for kill in kills:
        assert die(run, kill), f"it ended by itself after {count.kills} kills: {run.said.read_text()}"
        lost = max(0, last_step(run.folder) - run.checkpoint_step())
        left = kill.moment != "start" and run.is_writing()  # at the start there may be one of the kill before
        count.kills += 1
        count.in_write += left
        count.at_start += kill.moment == "start"
        count.in_step += kill.moment != "start" and not left
        count.of_one_process += kill.rank is not None
        count.lost_steps += lost
        count.most_lost = max(count.most_lost, lost)
        whom = f"process {kill.rank}" if kill.rank is not None else "all"
        where = "while writing" if left else "at the start" if kill.moment == "start" else "in a step"
        print(
            f"kill {count.kills}/{len(kills)} of {whom} {where}, at step {max(0, last_step(run.folder))}: {lost} lost",
            flush=True,
        )
        if kill.damage and len(run.checkpoints) > 1:
            spoil(run.checkpoints[-1], dice)
            count.damaged += 1
    run.finish()
    count.damaged_found = len(list((run.folder / "checkpoints").glob("*.damaged-*")))
    return count
