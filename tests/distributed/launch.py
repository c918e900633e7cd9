"""Starts the real trainer, in one process or several, as a user would."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

# Small enough to be quick, with everything on that could make processes differ.
TINY = [
    *("--data.train_images", "40", "--data.test_images", "19", "--data.image_size", "16"),
    *("--model.width", "4", "--model.depth", "2", "--discriminator.width", "4", "--discriminator.depth", "2"),
    *("--train.global_batch_size", "12", "--train.steps", "6", "--log.every", "2", "--evaluate.every", "3"),
    *("--checkpoint.every", "3", "--train.precision", "fp64", "--loss.warmup_steps", "1"),
    *("--optimizer.generator.clip_norm", "1.0", "--optimizer.discriminator.schedule", "linear"),
]


def start(
    module: str, *arguments: str, processes: int = 1, flags: tuple[str, ...] = ("--multi_gpu",)
) -> subprocess.CompletedProcess[str]:
    """Run a verb to its end; nothing of this process's own launch leaks into it."""
    fixed = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(processes), *fixed]
    if processes > 1:
        launcher += flags
    environment = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE", "MASTER_ADDR")}
    return subprocess.run(
        [*launcher, "-m", module, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
        check=False,
    )


def train(
    *arguments: str, processes: int = 1, flags: tuple[str, ...] = ("--multi_gpu",)
) -> subprocess.CompletedProcess[str]:
    """Run the trainer to its end."""
    return start("colordist.train", *arguments, processes=processes, flags=flags)


def records(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what depends on the clock or on the number of processes."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    ours = ("images_per_second", "sync_bytes")
    return [{key: value for key, value in line.items() if key not in ours} for line in lines]
