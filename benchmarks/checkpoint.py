"""What a checkpoint costs the training: written behind it (as it is), and written while it waits, in turns.

    python benchmarks/checkpoint.py --json checkpoint.json
    python benchmarks/checkpoint.py --width 64 --rounds 10

A round is three blocks of the same number of steps, long enough for a checkpoint to be written in one: *none* without a
checkpoint, *behind* with one at its start that is written while training goes on, *waiting* with one that is waited
for. Told in steps, that is divided by the median time of a step without a checkpoint:

- ``stall``: how long the training loop stood still, for the check that all processes agree, the copy to the host, and,
  where it waits, the writing;
- ``lost``: how much longer the block took than the one without. It includes what the writing takes from the training by
  using the same cores and memory, and every other disturbance of the machine.

The processes' own memory, a local disk and small images: a network on a GPU, or a slow disk, gives other numbers.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from colordist.cli import parse
from colordist.run.folder import RunFolder
from colordist.training.build import build_trainer
from colordist.training.trainer import Trainer

ROOT = Path(__file__).parents[1]
ARMS: tuple[Literal["none", "behind", "waiting"], ...] = ("none", "behind", "waiting")
WARM_UP = 5  # steps


class Bench:
    """Trains block by block."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, self.done = trainer, trainer.config.loss.warmup_steps  # from there on all networks learn
        self.steps(WARM_UP)

    def steps(self, count: int) -> float:
        """Train some steps. Returns how many seconds that took."""
        begin = time.perf_counter()
        for _ in range(count):
            self.trainer.engine.step(self.trainer.task, self.trainer.loader.micro_batches(self.done), self.done)
            self.done += 1
        return time.perf_counter() - begin

    def checkpoint(self, *, wait: bool) -> float:
        """Write a checkpoint. Returns for how many seconds training stood still."""
        assert self.trainer.writer is not None
        begin = time.perf_counter()
        self.trainer.save(self.done)
        if wait:
            self.trainer.writer.wait()
        return time.perf_counter() - begin

    def block(self, arm: Literal["none", "behind", "waiting"], count: int) -> tuple[float, float]:
        """Train some steps in one way. Returns how many seconds training stood still, and how many all of it took."""
        assert self.trainer.writer is not None
        stall = 0.0 if arm == "none" else self.checkpoint(wait=arm == "waiting")
        whole = stall + self.steps(count)
        self.trainer.writer.wait()  # not counted: there is time enough in a block
        return stall, whole


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values)}


def measure(trainer: Trainer, rounds: int) -> dict[str, Any]:
    """All rounds."""
    bench = Bench(trainer)
    bench.checkpoint(wait=True)  # the first one also makes the folder
    writing = max(bench.checkpoint(wait=True) for _ in range(3))
    count = max(5, round(2 * writing / (bench.steps(WARM_UP) / WARM_UP)))
    stalls: dict[str, list[float]] = {arm: [] for arm in ARMS}
    wholes: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for _ in range(rounds):
        for arm in ARMS:
            stall, whole = bench.block(arm, count)
            stalls[arm].append(stall)
            wholes[arm].append(whole)
    step = statistics.median(wholes["none"]) / count
    found: dict[str, Any] = {"step_seconds": step, "steps_a_block": count}
    for arm in ("behind", "waiting"):
        lost = [(whole - none) / step for whole, none in zip(wholes[arm], wholes["none"], strict=True)]
        found[arm] = {"stall": spread([stall / step for stall in stalls[arm]]), "lost": spread(lost)}
    pairs = zip(stalls["behind"], stalls["waiting"], strict=True)
    return found | {"ratio": spread([behind / waiting for behind, waiting in pairs])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default=str(ROOT / "configs" / "cgan.yaml"))
    parser.add_argument("--width", type=int, help="of both networks; default: the config's")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    settings = {"data.source": "synthetic", "data.train_images": 64, "data.test_images": 8, "data.classes": "all"}
    settings |= {"train.global_batch_size": options.batch, "train.precision": "fp32"}
    if options.width:
        settings |= {"model.width": options.width, "discriminator.width": options.width}
    config = parse(["--config", options.config, *(f"--{key}={value}" for key, value in settings.items())]).config
    with tempfile.TemporaryDirectory(prefix="checkpoint-") as name:
        folder = RunFolder(Path(name) / "run")
        trainer = build_trainer(config, folder)
        try:
            found = measure(trainer, options.rounds)
        finally:
            trainer.close()
        size = sum(file.stat().st_size for file in folder.checkpoints.glob("step-*/state.pt"))
        found["checkpoint_bytes"] = size // len(list(folder.checkpoints.glob("step-*/state.pt")))
    trainer.engine.close()
    parameters = {name: network.parameter_count() for name, network in trainer.engine.networks.items()}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found |= {"parameters": parameters, "config": Path(options.config).stem, "width": config.model.width}
    found |= {"machine": f"{platform.machine()}, {cores} cores, torch {torch.__version__}"}
    found |= {"batch": options.batch, "load": os.getloadavg()[0]}
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    report(found)


def report(found: dict[str, Any]) -> None:
    size, step = found["checkpoint_bytes"] / 1e6, found["step_seconds"] * 1e3
    print(f"{sum(found['parameters'].values()):,} parameters, checkpoint of {size:.1f} MB, step of {step:.0f} ms")
    for arm in ("behind", "waiting"):
        for what in ("stall", "lost"):
            print(f"{arm:8} {what:5} in steps: {told(found[arm][what])}")
    print(f"stall behind / waiting: {told(found['ratio'])}")


def told(values: dict[str, float]) -> str:
    return f"{values['median']:.3f} ({values['min']:.3f} to {values['max']:.3f}, n {values['n']})"


if __name__ == "__main__":
    main()
