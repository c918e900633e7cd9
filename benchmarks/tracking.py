"""What tracking costs the training: nothing written, metrics.jsonl, and W&B besides (offline), in turns.

    python benchmarks/tracking.py --json tracking.json

A round is one block of steps in each of three ways, a line logged after every step; the order of the ways changes from
round to round. Told are

- ``line``: how long the training loop stands still for one line, in ms: metrics.jsonl is on disk, W&B was handed it;
- ``step``: how much longer a step takes than with nothing written, in per cent: it also shows what W&B's own process
  takes from the same cores. Runs log every 50 steps, not every one, so their share of it is a fiftieth.
- ``picture``: the same as ``line`` for a sample grid with its histograms, which comes once an evaluation.
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
from typing import Any

import torch
from PIL import Image

from colordist.cli.parser import parse
from colordist.config import TrackConfig
from colordist.run.folder import RunFolder
from colordist.tracking import JsonLines, Tracker, Trackers, WandB
from colordist.training.build import build_trainer
from colordist.training.trainer import Trainer

ROOT = Path(__file__).parents[1]
ARMS = ("none", "jsonl", "wandb")


class Bench:
    """Trains block by block, each logged in one way."""

    def __init__(self, trainer: Trainer, folder: Path) -> None:
        self.trainer, self.step = trainer, trainer.config.loss.warmup_steps  # from there on all networks learn
        self.trackers: dict[str, Trackers] = {}
        for arm in ARMS:
            (folder / arm).mkdir()
            trackers: list[Tracker] = [JsonLines(folder / arm / "metrics.jsonl", 0)] if arm != "none" else []
            if arm == "wandb":
                trackers.append(WandB(TrackConfig(wandb="offline"), folder / arm, {}))
            self.trackers[arm] = Trackers(trackers)
        self.grid = folder / "grid.png"
        Image.effect_noise((16 * 32, 3 * 32), 64).convert("RGB").save(self.grid)

    def block(self, arm: str, count: int) -> tuple[float, float]:
        """Train some steps. Returns the seconds that logging took of each, and how long each was in all."""
        trainer, logging = self.trainer, 0.0
        begin = time.perf_counter()
        for _ in range(count):
            values = trainer.engine.step(trainer.task, trainer.loader.micro_batches(self.step), self.step)
            self.step += 1
            record = {"step": self.step, "images": 16 * self.step, **{key: float(each) for key, each in values.items()}}
            before = time.perf_counter()
            self.trackers[arm].log(record)
            logging += time.perf_counter() - before
        return logging / count, (time.perf_counter() - begin) / count

    def picture(self, arm: str) -> float:
        """Show a picture. Returns the seconds that it took."""
        before = time.perf_counter()
        self.trackers[arm].picture(self.grid, self.step)
        return time.perf_counter() - before


def measure(bench: Bench, rounds: int, steps: int) -> dict[str, Any]:
    """All rounds."""
    lines: dict[str, list[float]] = {arm: [] for arm in ARMS}
    whole: dict[str, list[float]] = {arm: [] for arm in ARMS}
    eval_batch: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for arm in ARMS:  # the first of everything
        bench.block(arm, steps)
        bench.picture(arm)
    for number in range(rounds):
        for arm in ARMS[number % len(ARMS) :] + ARMS[: number % len(ARMS)]:
            line, step = bench.block(arm, steps)
            lines[arm].append(1e3 * line)
            whole[arm].append(step)
            eval_batch[arm].append(1e3 * bench.picture(arm))
    found: dict[str, Any] = {"step_ms": spread([1e3 * step for step in whole["none"]])}
    for arm in ARMS[1:]:
        longer = [100 * (step / none - 1) for step, none in zip(whole[arm], whole["none"], strict=True)]
        found[arm] = {
            "line_ms": spread(lines[arm]),
            "step_percent": spread(longer),
            "picture_ms": spread(eval_batch[arm]),
        }
    return found


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values)}


def told(values: dict[str, float]) -> str:
    return f"{values['median']:.2f} ({values['min']:.2f} to {values['max']:.2f}, n {values['n']})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--steps", type=int, default=30, help="of a block")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    os.environ["WANDB_SILENT"] = "true"
    settings = {"data.train_images": 64, "data.test_images": 8, "train.precision": "fp32"}
    given = [f"--{key}={value}" for key, value in settings.items()]
    config = parse(["--config", str(ROOT / "configs" / "quickstart_cgan.yaml"), *given]).config
    with tempfile.TemporaryDirectory(prefix="tracking-") as name:
        trainer = build_trainer(config, RunFolder(Path(name) / "run"))
        bench = Bench(trainer, Path(name))
        try:
            found = measure(bench, options.rounds, options.steps)
        finally:
            for trackers in bench.trackers.values():
                trackers.close()
            trainer.close()
    trainer.engine.close()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found |= {"machine": f"{platform.machine()}, {cores} cores, torch {torch.__version__}", "load": os.getloadavg()[0]}
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    print(f"a step with nothing written: {told(found['step_ms'])} ms; load of the machine {found['load']:.1f}")
    for arm in ARMS[1:]:
        print(f"{arm:6} line {told(found[arm]['line_ms'])} ms; picture {told(found[arm]['picture_ms'])} ms")
        print(f"{arm:6} a step longer by {told(found[arm]['step_percent'])} %")


if __name__ == "__main__":
    main()
