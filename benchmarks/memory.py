"""What ``--dry_run`` expects a step to need, beside what it does need.

    python benchmarks/memory.py --json memory.json
    python benchmarks/memory.py --cases quickstart cgan --rounds 3
    python benchmarks/memory.py --time cgan --rounds 20

Each case is trained for two steps after the warm-up, by the engine and on batches of the loader, in a fresh process, or
two. *expected* is the estimate of colordist/training/memory.py. *measured* is the most that PyTorch had given out to tensors at
once, by its own accounts (on CPUs those of the profiler, on a GPU ``torch.cuda.max_memory_allocated``), less the few
images that are held: the estimate is about everything else. Told is ``expected / measured``.

The process as a whole needs more. *resident* is by how much its largest resident set grew in two such steps, without
the profiler: memory that is kept after use, buffers of libraries, and code that was loaded on the way are in it.

With ``--time``: how much longer a step takes with gradient checkpointing than without, one process, in turns.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate, count
from pathlib import Path
from typing import Any

import torch
from measuring import end_with_parent, hardware, run_together, summary, told
from torch.profiler import ProfilerActivity, profile

from colordist.cli.parser import parse
from colordist.config import Config
from colordist.data.loader import ResidentLoader
from colordist.engine.runtime import Engine
from colordist.training.batch_arithmetic import batch_arithmetic
from colordist.training.build import build_loader, build_source
from colordist.training.build_task import build_task
from colordist.training.memory import estimate

ROOT = Path(__file__).parents[1]
STEPS = 2
MIB = 2**20
CHECKPOINTING = ("--train.activation_checkpointing", "true")
# By name: a file in configs/, how many processes, and what differs from the file.
CASES: dict[str, tuple[str, int, tuple[str, ...]]] = {
    "quickstart": ("quickstart_cgan", 1, ()),
    "quickstart, checkpointing": ("quickstart_cgan", 1, CHECKPOINTING),
    "quickstart, R1": ("quickstart_cgan", 1, ("--task.r1_weight", "1")),
    "quickstart, noise": ("quickstart_cgan", 1, ("--model.noise", "6", "--task.candidates", "3")),
    "autoencoder": ("ae", 1, ()),
    "autoencoder, checkpointing": ("ae", 1, CHECKPOINTING),
    "cgan": ("cgan", 1, ()),
    "cgan, checkpointing": ("cgan", 1, CHECKPOINTING),
    "cgan, bf16": ("cgan", 1, ("--train.precision", "bf16")),
    "cgan, bf16, checkpointing": ("cgan", 1, ("--train.precision", "bf16", *CHECKPOINTING)),
    "cgan, 4 micro-batches": ("cgan", 1, ("--train.micro_batch_size", "16")),
    "cgan, 2 processes": ("cgan", 2, ()),
    "cgan, 2 processes x 2 micro-batches": ("cgan", 2, ("--train.micro_batch_size", "16")),
    "cgan, residual blocks and attention": ("ladder/11-backbone", 1, ()),
    "cyclegan": ("cyclegan", 1, ("--train.global_batch_size", "16")),
    "cyclegan, checkpointing": ("cyclegan", 1, ("--train.global_batch_size", "16", *CHECKPOINTING)),
    "cgan256, batch 2": ("cgan256", 1, ("--train.global_batch_size", "2")),
    "cgan256, batch 2, not checkpointing": (
        *("cgan256", 1),
        ("--train.global_batch_size", "2", "--train.activation_checkpointing", "false"),
    ),
    "cgan256": ("cgan256", 1, ()),
    "cgan256, not checkpointing": ("cgan256", 1, ("--train.activation_checkpointing", "false")),
}
FOR_GPUS = ("cgan256", "cgan256, not checkpointing")


def settings(case: str) -> Config:
    """A case's config, with few images."""
    file, _, changes = CASES[case]
    few = ("--data.source", "synthetic", "--data.train_images", "128", "--data.test_images", "1")
    return parse(["--config", str(ROOT / "configs" / f"{file}.yaml"), *few, "--data.classes", "all", *changes]).config


class Training:
    """Two steps of a config on this process."""

    def __init__(self, config: Config) -> None:
        self.engine = Engine(config.train.precision)
        self.config = replace(config, train=replace(config.train, precision=self.engine.precision))
        self.batches = batch_arithmetic(config.train, self.engine.world_size)

    def expected(self) -> int:
        """Bytes that the estimate expects the most."""
        return estimate(build_task(self.config), self.config, self.batches, self.engine.device.type).peak

    def measured(self) -> int:
        """The most bytes that tensors held at once, besides the images."""
        images: list[int] = []
        return peak(self.engine.device, lambda: images.append(self.train())) - images[0]

    def train(self) -> int:
        """Make everything that a step needs, and train. Returns the bytes of the images held."""
        loader, step = self.begin()
        for _ in range(STEPS):
            step()
        return loader.images.nbytes

    def begin(self) -> tuple[ResidentLoader, Callable[[], None]]:
        """The images, and what trains a step."""
        loader = build_loader(self.config, build_source(self.config.data, self.engine), self.engine)
        assert isinstance(loader, ResidentLoader)
        task, steps = build_task(self.config), count(self.config.loss.warmup_steps)
        self.engine.prepare(task)

        def step() -> None:
            number = next(steps)
            self.engine.step(task, loader.micro_batches(number), number)

        return loader, step


def peak(device: torch.device, work: Callable[[], object]) -> int:
    """The most bytes that PyTorch had given out at once on a device of what it gave out while some work was done."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    found = sorted((event for event in events if event["name"] == "[memory]"), key=lambda event: event["ts"])
    return max(accumulate(int(event["args"]["Bytes"]) for event in found))


def measure(case: str, out: Path) -> None:
    """Do one case on this process, one of its processes. The first one leaves what it found in a file."""
    end_with_parent()
    training = Training(settings(case))
    before = resident()
    if training.engine.device.type == "cpu":
        training.train()
        grown = resident() - before  # the profiler's own memory isn't in it
        measured = training.measured()
    else:
        measured = training.measured()
        grown = resident() - before
    found = {"expected": training.expected(), "measured": measured, "resident": grown}
    found |= {"precision": training.config.train.precision, "device": training.engine.device.type}
    if training.engine.is_main:
        out.write_text(json.dumps(found))
    training.engine.close()


def slowdown(case: str, rounds: int) -> dict[str, float]:
    """The time of a step with gradient checkpointing, in steps without."""
    config = settings(case)
    steps = []
    for activation_checkpointing in (False, True):
        train = replace(config.train, activation_checkpointing=activation_checkpointing)
        steps.append(Training(replace(config, train=train)).begin()[1])
    found = []
    for _ in range(1 + rounds):  # the first of each isn't counted
        plain, recomputing = (seconds(step) for step in steps)
        found.append(recomputing / plain)
    return summary(found[1:])


def seconds(work: Callable[[], None]) -> float:
    """How long some work takes, on the device too."""
    begin = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def resident() -> int:
    """Bytes of this process's largest resident set so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def run(case: str, rounds: int) -> dict[str, Any]:
    """A case, measured in fresh processes."""
    found = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="memory-") as folder:
            out = Path(folder) / "found.json"
            run_together(__file__, ["--alone", case, str(out)], CASES[case][1])
            found.append(json.loads(out.read_text()))
    spread = {key: summary([each[key] / MIB for each in found]) for key in ("expected", "measured", "resident")}
    ratio = summary([each["expected"] / each["measured"] for each in found])
    return spread | {"ratio": ratio, "precision": found[0]["precision"], "device": found[0]["device"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    usual = [case for case in CASES if torch.cuda.is_available() or case not in FOR_GPUS]
    parser.add_argument("--cases", nargs="+", choices=CASES, default=usual, metavar="CASE")
    parser.add_argument("--rounds", type=int, default=1, help="processes for each case, one after the other")
    parser.add_argument("--time", choices=CASES, metavar="CASE", help="what gradient checkpointing costs")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--alone", nargs=2, metavar=("CASE", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        measure(options.alone[0], Path(options.alone[1]))
        return
    if options.time:
        found = {"ratio": slowdown(options.time, options.rounds), "case": options.time}
        print(f"{options.time}, with checkpointing / without: {told(found['ratio'])}")
    else:
        found = {"cases": compare(options.cases, options.rounds)}
    if options.json:
        found |= {"hardware": hardware(), "load": os.getloadavg()[0]}
        options.json.write_text(json.dumps(found, indent=2) + "\n")


def compare(names: Sequence[str], rounds: int) -> dict[str, Any]:
    """Measure cases, and print them as a table."""
    print(f"{hardware()}; MiB, n = {rounds}")
    print("| case | expected | measured | expected / measured | resident |", "|---|--:|--:|--:|--:|", sep="\n")
    cases: dict[str, Any] = {}
    for case in names:
        found = cases[case] = run(case, rounds)
        middle = {key: found[key]["median"] for key in ("expected", "measured", "ratio", "resident")}
        print("| {} | {expected:.1f} | {measured:.1f} | {ratio:.3f} | {resident:.0f} |".format(case, **middle))
        sys.stdout.flush()
    return cases


if __name__ == "__main__":
    main()
