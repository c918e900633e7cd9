"""Kills a run at random moments, again and again, starts it with the same command each time, and compares the outcome.

    python benchmarks/chaos.py --kills 50 --seed 0 --processes 1 --task cgan --json chaos.json
    python benchmarks/chaos.py --kills 20 --processes 2 --damage

Real runs of ``colordist.train``, small ones, and SIGKILL: half of the time in the middle of the writing of a
checkpoint, as nearly as that can be hit, else in a step, now and then while the run starts. With several processes it
hits all of them, launcher included, or a single one. ``--damage`` besides spoils the newest checkpoint after some of
the kills.

At last the run is compared with one that nobody killed: everything in the last checkpoint (weights, optimizer states,
averaged weights, ...) and the snapshot must be the same to the bit, and metrics.jsonl but for the pace; no
step may be missing there or stand there twice. Exit code 0 if all that holds, else 1.
"""

import argparse
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
import torch
from torch import Tensor

from colordist.tracking import PACE

ROOT = Path(__file__).parents[1]
LAUNCH = [
    *(sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1"),
    *("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0", "--num_processes"),
]
# Small, with everything on that has a state: accumulation, averaged weights, warm-ups, schedules, clipping.
SETTINGS = {
    **{"data.train_images": 64, "data.test_images": 16, "data.image_size": 16, "train.precision": "fp32"},
    **{"model.width": 8, "model.depth": 2, "discriminator.width": 8, "discriminator.depth": 2},
    **{"train.global_batch_size": 8, "train.micro_batch_size": 2, "train.ema_images": 200, "loss.warmup_steps": 10},
    **{"optimizer.generator.schedule": "cosine", "optimizer.discriminator.schedule": "linear"},
    **{"optimizer.generator.clip_norm": 1.0, "checkpoint.every": 4, "checkpoint.keep": 3, "evaluate.every": 50},
}
PATIENCE = 300.0  # seconds that anything may take


class Failed(Exception):
    """A run did what it must not."""


@dataclass(frozen=True)
class Kill:
    """When to kill, and whom."""

    moment: Literal["start", "step", "write"]
    step: int
    """Not before this one; nothing to a kill at the start."""
    delay: float
    """Seconds to wait then."""
    rank: int | None
    """The process to kill; None for all of them."""
    damage: bool
    """Spoil the newest checkpoint afterwards."""


def sampler(kills: int, seed: int, steps: int, processes: int, *, damage: bool) -> list[Kill]:
    """All kills of a run, in order. The last one leaves it some steps to go."""
    dice = random.Random(seed)
    longest = {"start": 8.0, "step": 0.1, "write": 0.01}
    moments: list[Literal["start", "step", "write"]] = ["start", "step", "write"]
    found = []
    for step in sorted(dice.randrange(steps * 4 // 5) for _ in range(kills)):
        (moment,) = dice.choices(moments, [1, 4, 5])
        alone = processes > 1 and moment != "start" and dice.random() < 0.5
        rank = dice.randrange(processes) if alone else None
        found.append(Kill(moment, step, dice.random() * longest[moment], rank, damage and dice.random() < 0.3))
    return found


@dataclass
class Run:
    """A run that may die."""

    folder: Path
    task: str
    steps: int
    processes: int

    def start(self) -> subprocess.Popen[bytes]:
        """Start it, or continue it: the same command. What it says is kept in a file."""
        settings = SETTINGS | {"task": self.task, "train.steps": self.steps, "log.every": 1, "run.dir": self.folder}
        launch = [sys.executable] if self.processes == 1 else [*LAUNCH, str(self.processes)]
        command = [*launch, "-m", "colordist.train", *(f"--{key}={value}" for key, value in settings.items())]
        cores = sorted(os.sched_getaffinity(0))[-self.processes :]  # networks this small are slower on several
        with self.said.open("wb") as said:
            started = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, cwd=ROOT)
        os.sched_setaffinity(started.pid, cores)
        return started

    @property
    def said(self) -> Path:
        """What it has said since it was started the last time."""
        return self.folder.with_suffix(".txt")

    @property
    def checkpoints(self) -> list[Path]:
        """Those that have their name, oldest first."""
        return sorted((self.folder / "checkpoints").glob("step-??????"))

    def checkpoint_step(self) -> int:
        """The step that it would continue from."""
        return int(self.checkpoints[-1].name.removeprefix("step-")) if self.checkpoints else 0

    def is_writing(self) -> bool:
        """Whether there is a checkpoint that hasn't its name yet."""
        return any((self.folder / "checkpoints").glob("step-*.tmp-*"))

    def last_step(self) -> int:
        """The step of the last whole line of metrics.jsonl; -1 where there is none."""
        try:
            with (self.folder / "metrics.jsonl").open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 8192))
                return int(json.loads(file.read().split(b"\n")[-2])["step"])
        except (FileNotFoundError, IndexError):
            return -1

    def lines(self) -> list[dict[str, Any]]:
        """metrics.jsonl but for how fast it went."""
        found = [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]
        return [{key: value for key, value in line.items() if key not in PACE} for line in found]

    def finish(self) -> None:
        """Start it, or continue it, to its end. Raises Failed if it doesn't get there."""
        if code := self.start().wait(PATIENCE):
            raise Failed(f"exit code {code}: {self.said.read_text()}")


def wait_for(event: Callable[[], bool], process: subprocess.Popen[bytes]) -> bool:
    """Wait until something happens. Returns whether the process has lived to see it."""
    deadline = time.monotonic() + PATIENCE
    while not event():
        if process.poll() is not None:
            return False
        if time.monotonic() > deadline:
            raise Failed(f"nothing has happened for {PATIENCE:.0f} s")
        time.sleep(0.001)
    return process.poll() is None


def seconds(count: float) -> Callable[[], bool]:
    """They are over."""
    end = time.monotonic() + count
    return lambda: time.monotonic() > end


def workers(process: subprocess.Popen[bytes], processes: int) -> list[int]:
    """The numbers of those that train, by rank."""
    if processes == 1:
        return [process.pid]
    ranks = {}
    for child in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            ranks[child.environ().get("RANK", "")] = child.pid
    return [ranks[str(rank)] for rank in range(processes)]


def die(run: Run, kill: Kill) -> bool:
    """Start a run and kill it when it is time. Returns whether it has lived until then."""
    process, begin = run.start(), run.last_step()
    if kill.moment == "start":
        over = seconds(kill.delay)
        if not wait_for(lambda: over() or run.last_step() > begin, process):
            return False
        os.kill(process.pid, signal.SIGSTOP)  # so that a launcher starts no more
        hit = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
    else:
        if not wait_for(lambda: run.last_step() > max(begin, kill.step), process):
            return False
        hit = workers(process, run.processes)
        hit = [*hit, process.pid] if kill.rank is None else [hit[kill.rank]]
        if kill.moment == "write" and not wait_for(run.is_writing, process):
            return False
        if not wait_for(seconds(kill.delay), process):
            return False
    for pid in hit:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait(PATIENCE)  # where one was hit, the others and the launcher have to notice
    return True


def spoil(checkpoint: Path, dice: random.Random) -> None:
    """What a disk may do: flip a bit, cut a file, lose it."""
    file = checkpoint / dice.choice(["state.pt", "manifest.json"])
    data = bytearray(file.read_bytes())
    place = dice.randrange(len(data))
    match dice.choice(["flip", "cut", "lose"]):
        case "flip":
            data[place] ^= 1 << dice.randrange(8)
            file.write_bytes(data)
        case "cut":
            file.write_bytes(data[:place])
        case "lose":
            file.unlink()


@dataclass
class Count:
    """What happened."""

    kills: int = 0
    starts: int = 0
    at_start: int = 0
    in_step: int = 0
    in_write: int = 0
    """Where a checkpoint without a name was left behind."""
    of_one_process: int = 0
    lost_steps: int = 0
    most_lost: int = 0
    damaged: int = 0
    damaged_found: int = 0


def torment(run: Run, kills: list[Kill], seed: int) -> Count:
    """Kill a run as planned, and let it end."""
    count, dice = Count(), random.Random(seed)
    for kill in kills:
        count.starts += 1
        if not die(run, kill):
            raise Failed(f"it ended by itself after {count.kills} kills: {run.said.read_text()}")
        lost = max(0, run.last_step() - run.checkpoint_step())
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
            f"kill {count.kills}/{len(kills)} of {whom} {where}, at step {max(0, run.last_step())}: {lost} lost",
            flush=True,
        )
        if kill.damage and len(run.checkpoints) > 1:
            spoil(run.checkpoints[-1], dice)
            count.damaged += 1
    count.starts += 1
    run.finish()
    count.damaged_found = len(list((run.folder / "checkpoints").glob("*.damaged-*")))
    return count


def flat(value: object, name: str = "") -> dict[str, object]:
    """All values in nested dicts and lists, by their path."""
    if isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return {path: part for key, each in pairs for path, part in flat(each, f"{name}/{key}").items()}
    return {name: value}


def compare(run: Run, expected: Run) -> dict[str, bool]:
    """What is the same to the bit."""
    one, other = (flat(torch.load(each.checkpoints[-1] / "state.pt", weights_only=True)) for each in (run, expected))
    assert one.keys() == other.keys(), "different networks"
    same = {
        path: torch.equal(one[path], value) if isinstance(value, Tensor) else one[path] == value  # type: ignore[arg-type]
        for path, value in other.items()
    }
    parts = {name: [same[path] for path in same if f"/{part}/" in path] for name, part in PARTS.items()}
    assert all(parts.values()), "something to compare is missing"
    lines, weights = run.lines(), Path("snapshots/latest/model.safetensors")
    times = Counter(line["step"] for line in lines if "generator/gradient_norm" in line)
    return {
        **{name: all(found) for name, found in parts.items()},
        "all of the checkpoint": all(same.values()),
        "snapshot": (run.folder / weights).read_bytes() == (expected.folder / weights).read_bytes(),
        "metrics.jsonl": lines == expected.lines(),
        "each step once": times == Counter(range(1, run.steps + 1)),
    }


PARTS = {"weights": "module", "optimizer states": "optimizer", "averaged weights": "ema"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--task", choices=["autoencoder", "cgan"], default="cgan")
    parser.add_argument("--steps", type=int, help="default: 6 a kill, and 40")
    parser.add_argument("--damage", action="store_true", help="spoil the newest checkpoint after some of the kills")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    steps = options.steps or 6 * options.kills + 40
    kills = sampler(options.kills, options.seed, steps, options.processes, damage=options.damage)
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        run = Run(Path(name) / "killed", options.task, steps, options.processes)
        expected = Run(Path(name) / "straight", options.task, steps, options.processes)
        try:
            expected.finish()
            count = torment(run, kills, options.seed)
        except Failed as failure:
            sys.exit(f"failed: {failure}")
        same = compare(run, expected)
    holds = all(same.values()) and count.damaged == count.damaged_found
    found: dict[str, Any] = {key: value for key, value in vars(options).items() if key != "json"}
    found |= {"steps": steps, **asdict(count), "same": same, "holds": holds, "seconds": round(time.monotonic() - begin)}
    found["machine"] = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    for key, value in (asdict(count) | same).items():
        print(f"{key.replace('_', ' ')}: {value}")
    print("holds: nothing differs" if holds else "DOES NOT HOLD")
    sys.exit(not holds)


if __name__ == "__main__":
    main()
