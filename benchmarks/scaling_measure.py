"""What benchmarks/scaling.py measures, in processes of its own: computing alone, and two processes on a link.

Each process has a core and a thread. Settings take turns, round after round, so that what else the machine does meets
all of them alike; a time is the median over the rounds, the slower process's where there are two.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import sync
import torch
import torch.distributed as dist
from measuring import end_with_parent, hardware, summary, wait
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from colordist.cli import parse
from colordist.config import Config
from colordist.engine.ddp import DDPStrategy
from colordist.engine.runtime import Engine
from colordist.tasks.base import Task
from colordist.training.build_task import build_task

Setting = tuple[int, int]
"""Images of a process, and how many at once."""

WARM_UP = 1  # rounds
SINGLE = (1, 2, 4, 8, 16, 32)  # images in one micro-batch, to fit
SEVERAL: tuple[Setting, ...] = ((4, 2), (16, 8), (32, 16), (8, 2), (32, 8), (16, 2))
HELD_OUT: tuple[Setting, ...] = ((3, 3), (6, 6), (12, 12), (24, 24), (48, 48), (12, 4), (24, 12), (24, 6))
# Bytes to sum: buckets are mostly larger than 64 KiB, which tc lets pass at full speed.
SIZES = tuple(2**power for power in range(17, 24, 2))  # to fit: 128 KiB to 8 MiB
HELD_OUT_SIZES = tuple(2**power for power in range(16, 24, 2))
CHECKED: tuple[Setting, ...] = ((4, 4), (12, 12), (32, 32), (16, 8))  # steps of two processes


class Training:
    """Steps of a task on noise, of any size."""

    def __init__(self, config: Config) -> None:
        self.engine = Engine("fp32")
        self.task: Task = build_task(config)
        self.engine.prepare(self.task)
        if not dist.is_initialized():  # a group of one, so that the same code measures one process and two
            dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        self.config = config
        self.number = config.loss.warmup_steps  # from here on all networks learn

    def step(self, images: int, micro_batch: int) -> Callable[[int], None]:
        """A step, ready to run; its argument is of no matter."""
        train = replace(self.config.train, global_batch_size=images * self.engine.world_size, micro_batch_size=None)
        batch = sync.noise(replace(self.config, train=train), self.number)
        parts = [batch[start : start + micro_batch] for start in range(0, images, micro_batch)]
        self.number += 1
        return lambda _: void(self.engine.step(self.task, parts, self.number - 1))


def void(_: object) -> None:
    """Leave a result alone."""


def work(config_file: str, rounds: int, file: Path, *, quick: bool) -> None:
    """What a process does; the first one writes what was found."""
    training = Training(parse(["--config", config_file]).config)
    if training.engine.world_size == 1:
        found = alone(training, rounds, quick=quick)
    else:
        found = {"all_reduce": time_all_reduce(2 * rounds), **time_two(training, rounds, quick=quick)}
    found["load"] = os.getloadavg()[0]
    if training.engine.is_main:
        file.write_text(json.dumps(found))
    training.engine.close()


# --- one process


def alone(training: Training, rounds: int, *, quick: bool) -> dict[str, Any]:
    """Steps of many sizes, where in them gradients come, and what there is to compute."""
    settings = [*((images, images) for images in SINGLE), *SEVERAL, *HELD_OUT]
    if quick:
        settings = [setting for setting in settings if setting[0] <= 8]
    times = time_steps(training, settings, rounds)
    return {
        "steps": [
            {"images": images, "micro_batch": size, "held_out": (images, size) in HELD_OUT, **times[images, size]}
            for images, size in settings
        ],
        "turns": time_turns(training, 4 if quick else 16, rounds),
        "counts": count(training),
    }


def time_steps(training: Training, settings: Sequence[Setting], rounds: int) -> dict[Setting, dict[str, float]]:
    """Seconds a step, for each setting."""
    times: dict[Setting, list[float]] = {setting: [] for setting in settings}
    for _ in range(WARM_UP + rounds):
        for setting, found in times.items():
            found.append(sync.timed(training.step(*setting), 0)[0])
    return {setting: summary(found[WARM_UP:]) for setting, found in times.items()}


def time_turns(training: Training, images: int, rounds: int) -> list[dict[str, Any]]:
    """For each turn, its backward pass as a share of the step, and when in it each gradient is ready.

    Gradients are (bytes, share of the backward pass), in the order in which they come.
    """
    shares: dict[str, list[float]] = {}
    ready: dict[str, dict[Tensor, list[float]]] = {}
    for number in range(WARM_UP + rounds):
        run = training.step(images, images)
        with watched(training.task) as passes:
            took = sync.timed(run, 0)[0]
        for name, (start, end, arrivals) in passes.items() if number >= WARM_UP else ():
            shares.setdefault(name, []).append((end - start) / took)
            for parameter, when in arrivals.items():
                ready.setdefault(name, {}).setdefault(parameter, []).append((when - start) / (end - start))
    return [
        {
            "name": name,
            "backward": statistics.median(shares[name]),
            "gradients": sorted(
                ((each.numel() * each.element_size(), statistics.median(when)) for each, when in arrivals.items()),
                key=lambda gradient: gradient[1],
            ),
        }
        for name, arrivals in ready.items()
    ]


Passes = dict[str, tuple[float, float, dict[Tensor, float]]]
"""By network: when its backward pass began and ended, and when in between each parameter had its gradient."""


@contextmanager
def watched(task: Task) -> Iterator[Passes]:
    """Look at the clock where gradients come."""
    passes: Passes = {}
    arrivals: dict[Tensor, float] = {}
    names = {network: name for name, network in task.networks.items()}
    backward = DDPStrategy.backward

    def watched_backward(strategy: DDPStrategy, loss: Tensor) -> None:
        arrivals.clear()
        start = time.perf_counter()
        backward(strategy, loss)
        passes[names[strategy.network]] = (start, time.perf_counter(), dict(arrivals))

    def arrive(parameter: Tensor) -> None:
        arrivals[parameter] = time.perf_counter()

    with ExitStack() as stack:
        for network in task.networks.values():
            network.set_trainable(True)  # frozen parameters take no hook
            for parameter in network.module.parameters():
                if parameter.requires_grad:
                    stack.callback(parameter.register_post_accumulate_grad_hook(arrive).remove)
        stack.enter_context(patch.object(DDPStrategy, "backward", watched_backward))
        yield passes


class Operations(TorchDispatchMode):
    """Counts what torch hands to a device; views are none of it."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        self.count += not function.is_view
        return function(*args, **(kwargs or {}))


def count(training: Training) -> list[dict[str, int]]:
    """Operations and floating-point operations of steps in 1, 2 and 3 micro-batches of 2 images."""
    found = []
    for parts in (1, 2, 3):
        run, operations = training.step(2 * parts, 2), Operations()
        with FlopCounterMode(display=False) as flops, operations:
            run(0)
        found.append({"micro_batches": parts, "operations": operations.count, "flops": flops.get_total_flops()})
    return found


# --- two processes


def time_all_reduce(rounds: int) -> list[dict[str, Any]]:
    """Seconds, and those of a processor, by bytes."""
    sizes = [*SIZES, *HELD_OUT_SIZES]
    buffer = torch.zeros(max(sizes) // 4)
    times: dict[int, list[tuple[float, float]]] = {size: [] for size in sizes}
    for _ in range(WARM_UP + rounds):
        for size, found in times.items():
            part = buffer[: size // 4]
            found.append(sync.timed(lambda _, part=part: void(dist.all_reduce(part)), 0))  # type: ignore[misc]
    return [
        {
            "bytes": size,
            "held_out": size in HELD_OUT_SIZES,
            **summary([took for took, _ in found[WARM_UP:]]),
            "busy": statistics.median(computed for _, computed in found[WARM_UP:]) / 2,
        }
        for size, found in times.items()
    ]


def time_two(training: Training, rounds: int, *, quick: bool) -> dict[str, Any]:
    """Steps of both processes, in turns with steps that send nothing; and the buckets that were sent."""
    settings = [setting for setting in CHECKED if setting[0] <= 4 or not quick]
    arms: dict[str, dict[Setting, list[float]]] = {
        arm: {setting: [] for setting in settings} for arm in ("sending", "silent")
    }
    for _ in range(WARM_UP + rounds):
        for setting in settings:
            for arm, found in arms.items():
                run = training.step(*setting)
                run = sync.with_hook(run, sync.send_nothing) if arm == "silent" else run
                found[setting].append(sync.timed(run, 0)[0])
    times = {arm: {each: summary(took[WARM_UP:]) for each, took in found.items()} for arm, found in arms.items()}
    steps = [
        {"images": setting[0], "micro_batch": setting[1], **{arm: times[arm][setting] for arm in arms}}
        for setting in settings
    ]
    return {"steps": steps, "buckets": sent(training)}


def sent(training: Training) -> list[int]:
    """Bytes of each bucket of a step, in order."""
    sizes: list[int] = []

    def note(group: Any, bucket: Any) -> Any:  # noqa: ANN401  torch doesn't export their types
        sizes.append(bucket.buffer().numel() * bucket.buffer().element_size())
        return sync.send_nothing(group, bucket)

    sync.with_hook(training.step(2, 2), note)(0)
    return sizes


# --- what starts them


def measure(config: str, rates: Sequence[str], rounds: int, *, quick: bool) -> dict[str, Any]:
    """All there is to measure here: {alone, links: {name: ...}, skipped: {name: why}, ...}."""
    arguments = ["--config", config, "--rounds", str(rounds), *(["--quick"] if quick else [])]
    found: dict[str, Any] = {"config": Path(config).stem, "hardware": hardware(), "cores": len(cores())}
    print("computing, alone ...", file=sys.stderr, flush=True)
    found |= {"alone": run_alone(arguments), "links": {}, "skipped": {}}
    for link in ("loopback", *rates):
        reason = sync.obstacle() if link != "loopback" else None
        print(f"two processes, {link} ...", file=sys.stderr, flush=True)
        try:
            if reason is not None:
                raise sync.Unavailable(reason)
            found["links"][link] = run_two(arguments, link)
        except sync.Unavailable as why:
            found["skipped"][link] = str(why)
    return found


def run_alone(arguments: Sequence[str]) -> dict[str, Any]:
    """One process on the first core."""
    settings = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    with TemporaryDirectory() as folder:
        file = Path(folder) / "found.json"
        process = subprocess.Popen(
            [sys.executable, __file__, *arguments, str(file)], env=settings, stdin=subprocess.PIPE
        )
        try:
            pin([process])
            go([process])
            if process.wait():
                raise RuntimeError("the process that computes alone failed")
        finally:
            process.kill()
        return read(file)


def run_two(arguments: Sequence[str], link: str) -> dict[str, Any]:
    """Two processes, joined by a link. Raises sync.Unavailable where that can't be had."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "found.json"
        slowed = link != "loopback"
        with sync.started(__file__, [*arguments, str(file)], namespaces=slowed) as processes:
            pin(processes)
            if slowed:
                sync.join(processes, link)
            go(processes)
            wait(processes)
        return read(file)


def pin(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Give each a core of its own, as long as there are some."""
    if hasattr(os, "sched_setaffinity"):
        for number, process in enumerate(processes):
            os.sched_setaffinity(process.pid, {cores()[number % len(cores())]})


def cores() -> list[int]:
    """Those that may be used."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def go(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Let processes begin that wait to be told."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()


def read(file: Path) -> dict[str, Any]:
    """What a process wrote."""
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def main() -> None:
    """Be one of the processes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--config")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("file", type=Path)
    options = parser.parse_args()
    sys.stdin.readline()  # until the link is there
    end_with_parent()
    work(options.config, options.rounds, options.file, quick=options.quick)


if __name__ == "__main__":
    main()
