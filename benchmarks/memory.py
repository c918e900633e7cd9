"""The memory estimate of ``--dry_run``, compared with what a step allocates.

    python benchmarks/memory.py --json memory.json
    python benchmarks/memory.py --cases quickstart cgan --rounds 3

Each case is trained for two steps after the warm-up, by the engine and on batches of the loader, in a fresh process, or
two. *expected* is the estimate of colordist/training/memory.py. *measured* is PyTorch's peak allocation for tensors (on
CPUs by its profiler, on a GPU ``torch.cuda.max_memory_allocated``), without the images held, which the estimate leaves
out. The ratio is ``expected / measured``.

The whole process needs more. *resident* is the growth of its largest resident set in two such steps, without the
profiler: it includes cached memory, buffers of libraries, and code loaded on the way.
"""

import argparse
import json
import resource
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import torch
from harness import ROOT, Processes, Results, arguments, config_of, finish, summary
from torch.profiler import ProfilerActivity, profile

from colordist.config import Config
from colordist.data.loader import ResidentLoader
from colordist.engine.runtime import Engine
from colordist.evaluation.build_source import build_source
from colordist.training.batch_arithmetic import batch_arithmetic
from colordist.training.build import build_loader
from colordist.training.build_task import build_networks, build_task
from colordist.training.memory import estimate

STEPS = 2
MIB = 2**20
CHECKPOINTING = {"train.activation_checkpointing": True}
NO_WEIGHTS = {"model.weights": "none", "task.feature_weight": 0}  # no pretrained ones: works offline
# By name: a file in configs/, the number of processes, and settings that differ from the file.
CASES: dict[str, tuple[str, int, dict[str, object]]] = {
    "quickstart": ("quickstart_cgan", 1, {}),
    "quickstart, checkpointing": ("quickstart_cgan", 1, CHECKPOINTING),
    "quickstart, R1": ("quickstart_cgan", 1, {"task.r1_weight": 1}),
    "quickstart, noise": ("quickstart_cgan", 1, {"model.noise": 6, "task.candidates": 3}),
    "autoencoder": ("ae", 1, {}),
    "autoencoder, checkpointing": ("ae", 1, CHECKPOINTING),
    "cgan": ("cgan", 1, {}),
    "cgan, checkpointing": ("cgan", 1, CHECKPOINTING),
    "cgan, bf16": ("cgan", 1, {"train.precision": "bf16"}),
    "cgan, bf16, checkpointing": ("cgan", 1, {"train.precision": "bf16", **CHECKPOINTING}),
    "cgan, 4 micro-batches": ("cgan", 1, {"train.micro_batch_size": 16}),
    "cgan, 2 processes": ("cgan", 2, {}),
    "cgan, 2 processes x 2 micro-batches": ("cgan", 2, {"train.micro_batch_size": 16}),
    "cgan, residual blocks and attention": ("ladder/11-backbone", 1, {}),
    "cyclegan": ("cyclegan", 1, {"train.global_batch_size": 16}),
    "cyclegan, checkpointing": ("cyclegan", 1, {"train.global_batch_size": 16, **CHECKPOINTING}),
    "photos": ("photos_cgan", 1, NO_WEIGHTS),
    "photos, checkpointing": ("photos_cgan", 1, {**NO_WEIGHTS, **CHECKPOINTING}),
    "photos, 256x256": ("photos_cgan", 1, {"data.image_size": 256, **NO_WEIGHTS}),
}
FOR_GPUS = ("photos, 256x256",)


def settings(case: str) -> Config:
    """A case's config, with few images."""
    file, _, changes = CASES[case]
    few = {"data.source": "synthetic", "data.train_images": 128, "data.test_images": 1}
    return config_of(ROOT / "configs" / f"{file}.yaml", few | changes)


class Training:
    """Two steps of a config on this process."""

    def __init__(self, config: Config) -> None:
        self.engine = Engine(config.train.precision)
        self.config = replace(config, train=replace(config.train, precision=self.engine.precision))
        self.batches = batch_arithmetic(config.train, self.engine.world_size)

    def expected(self) -> int:
        """The estimate of the peak, in bytes."""
        task = build_task(self.config, self.engine.world_size)
        networks = build_networks(task, self.config)
        return estimate(task, networks, self.config, self.batches, self.engine.device.type).peak

    def measured(self) -> int:
        """The peak allocation without the images, in bytes."""
        images: list[int] = []
        return peak(self.engine.device, lambda: images.append(self.train())) - images[0]

    def train(self) -> int:
        """Build everything that a step needs, and train. Returns the bytes of the images held."""
        task = build_task(self.config, self.engine.world_size)
        warm_up = int(getattr(self.config.task, "warmup_steps", 0))
        loader = build_loader(self.config, task, build_source(self.config.data, self.engine), self.engine)
        assert isinstance(loader, ResidentLoader)
        self.engine.prepare(task, build_networks(task, self.config))
        for step in range(warm_up, warm_up + STEPS):
            self.engine.step(task, loader.micro_batches(step), step)
        return loader.nbytes


def peak(device: torch.device, work: Callable[[], object]) -> int:
    """The peak of the bytes that PyTorch allocates on a device during some work."""
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


def measure(case: str) -> Results:
    """Results of this process, one of a case's, in bytes."""
    training = Training(settings(case))
    before = resident()
    if training.engine.device.type == "cpu":
        training.train()
        grown = resident() - before  # before the profiler needs memory, too
        measured = training.measured()
    else:
        measured = training.measured()
        grown = resident() - before
    found = {"expected": training.expected(), "measured": measured, "resident": grown}
    return found | {"precision": training.config.train.precision, "device": training.engine.device.type}


def resident() -> int:
    """Bytes of this process's largest resident set so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def run(case: str, rounds: int) -> Results:
    """A case, measured in fresh processes."""
    found = []
    for _ in range(rounds):
        with Processes([sys.executable, __file__, "--case", case], CASES[case][1], {}) as processes:
            found.append(processes.ask("")[0])
    spread = {key: summary([each[key] / MIB for each in found]) for key in ("expected", "measured", "resident")}
    ratio = summary([each["expected"] / each["measured"] for each in found])
    return spread | {"ratio": ratio, "precision": found[0]["precision"], "device": found[0]["device"]}


def main() -> None:
    parser = arguments(__doc__, 1)
    usual = [case for case in CASES if torch.cuda.is_available() or case not in FOR_GPUS]
    parser.add_argument("--cases", nargs="+", choices=CASES, default=usual, metavar="CASE")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)  # run as a process of a case
    options = parser.parse_args()
    if options.case:
        sys.stdin.readline()
        print(json.dumps(measure(options.case)), flush=True)
        sys.stdin.readline()  # until the others have answered
        return
    print("MiB", "| case | expected | measured | expected / measured | resident |", sep="\n")
    print("|---|--:|--:|--:|--:|")
    cases: Results = {}
    for case in options.cases:
        found = cases[case] = run(case, options.rounds)
        middle = {key: found[key]["median"] for key in ("expected", "measured", "ratio", "resident")}
        print("| {} | {expected:.1f} | {measured:.1f} | {ratio:.3f} | {resident:.0f} |".format(case, **middle))
        sys.stdout.flush()
    finish(options, {"cases": cases})


if __name__ == "__main__":
    main()
