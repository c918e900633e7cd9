"""Trains the runs of an experiment, within a time limit, and compares their scores over several seeds."""

import argparse
import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Any

import torch
import yaml

from colordist import registry
from colordist.config import Config
from colordist.data.batch import Share
from colordist.data.loader import ResidentLoader
from colordist.data.sampler import Sampler
from colordist.engine.runtime import Engine
from colordist.keys import nest
from colordist.metrics.specs import ReferenceRole
from colordist.reporting.runs import Run, load_run
from colordist.run.folder import RunFolder
from colordist.training.build_task import build_networks, build_task

_ROUNDS, _BLOCK = 7, 4  # of the calibration: rounds, in each a block of steps of each arm

Spread = dict[str, float]
"""Mean and range over the seeds."""


@dataclass(frozen=True)
class Job:
    """A training run."""

    folder: RunFolder
    group: str
    """Runs of a group differ in their seed alone. Empty: its scores are no part of the results."""
    config: Path | None
    settings: dict[str, object]

    @property
    def finished(self) -> bool:
        """Whether it is trained to the end."""
        return self.folder.state == "finished"


def add_options(parser: argparse.ArgumentParser, out: str) -> None:
    """Add the options of all experiments. out: default folder of the runs."""
    parser.add_argument("--out", type=Path, default=Path(out), help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="further settings of all runs")
    parser.add_argument("--minutes", type=float, help="stop after this time; the same command continues")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all scores")


def given(options: argparse.Namespace) -> dict[str, Any]:
    """The settings of ``--set`` by dotted key."""
    settings = {key: yaml.safe_load(value) for key, value in (each.split("=", 1) for each in options.set)}
    for key, value in settings.items():
        with contextlib.suppress(ValueError):  # YAML takes 1e-3, without a point, for a text
            settings[key] = float(value) if isinstance(value, str) else value
    return settings


def run(jobs: Sequence[Job], options: argparse.Namespace, shown: Sequence[str], at_once: int = 1) -> None:
    """Train what isn't finished, in this order, while there is time. Then print a table and write all scores.

    shown: metrics of the table. at_once: number of runs at a time, each on its share of the cores.
    """
    deadline = time.monotonic() + 60 * options.minutes if options.minutes else None
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    shares: Queue[list[int]] = Queue()
    for number in range(at_once):
        shares.put(cores[number::at_once])

    def work(job: Job) -> None:
        share = shares.get()
        try:
            train(job, share, deadline)
        finally:
            shares.put(share)

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(work, [job for job in jobs if not job.finished]))
    print(f"{sum(job.finished for job in jobs)} of {len(jobs)} runs are finished")
    found = groups(jobs)
    if found:
        print(table(found, shown))
    if options.json:
        rows = {group: {"scores": spreads(runs), "references": runs[0].references} for group, runs in found.items()}
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def train(job: Job, cores: Sequence[int], deadline: float | None) -> None:
    """Start or continue a run, while there is time. cores: to use; none: all. deadline: on the monotonic clock."""
    started = time.monotonic()
    if deadline is not None and deadline <= started:
        return
    command = [sys.executable, "-m", "colordist.train", "--run.dir", str(job.folder.path)]
    command += ["--config", str(job.config)] if job.config else []
    command += as_arguments(job.settings)
    command += [] if deadline is None else [f"--train.max_minutes={(deadline - started) / 60}"]
    seconds = cpu_seconds(command, cores)
    wall = time.monotonic() - started
    print(f"{job.folder.path} {job.folder.state} after {wall:.0f} s, {seconds:.0f} CPU seconds", flush=True)


def cpu_seconds(command: Sequence[str], cores: Sequence[int] = ()) -> float:
    """Run a command, and return its CPU time. cores: to use; none: all. Raises SystemExit if it fails."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    if cores:
        os.sched_setaffinity(process.pid, cores)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)  # else it is waited for again
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    return usage.ru_utime + usage.ru_stime


def as_arguments(settings: Mapping[str, object]) -> list[str]:
    """Settings by dotted key as arguments of the command line."""
    return [f"--{key}={_text(value)}" for key, value in settings.items()]


def _text(value: object) -> str:
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_text(each)}' for key, each in value.items())}}}"
    return f"[{', '.join(map(_text, value))}]" if isinstance(value, list) else str(value)


def calibrated(file: Path, arms: Mapping[str, Mapping[str, Any]], time_of: float | str) -> dict[str, int]:
    """Steps of each arm that take equal CPU time on one core. Measured once, then kept in a file.

    arms: settings by dotted key, by name. time_of: seconds, or the arm that keeps its own number of steps. The time of
    a step is that of the least disturbed block of steps; in a GAN's warm-up, whose steps are shorter, it is measured
    too.
    """
    known: dict[str, int] = json.loads(file.read_text()) if file.exists() else {}
    if missing := arms.keys() - known.keys():
        configs = {name: registry.make_config(nest(arms[name])) for name in sorted(missing | {time_of} & arms.keys())}
        warm_ups = {name: int(getattr(config.task, "warmup_steps", 0)) for name, config in configs.items()}
        step = step_seconds({(name, first): configs[name] for name in configs for first in {0, warm_ups[name]}})
        if isinstance(time_of, str):
            warm_up, steps = warm_ups[time_of], configs[time_of].train.steps
            time_of = warm_up * step[time_of, 0] + (steps - warm_up) * step[time_of, warm_up]
        print(f"{time_of:.0f} CPU seconds a run")
        for name, warm_up in warm_ups.items():
            known[name] = warm_up + round((time_of - warm_up * step[name, 0]) / step[name, warm_up])
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(known, indent=2) + "\n")
    return known


def step_seconds(configs: Mapping[tuple[str, int], Config]) -> dict[tuple[str, int], float]:
    """CPU time of a training step on one core, of the fastest block. By name and first step."""
    torch.set_num_threads(1)
    blocks = {each: block(config, each[1]) for each, config in configs.items()}
    times: dict[tuple[str, int], list[float]] = {each: [] for each in blocks}
    for number in range(_ROUNDS + 1):
        for each, work in blocks.items():
            begin = time.process_time()
            work()
            if number:  # the first one warms up
                times[each].append((time.process_time() - begin) / _BLOCK)
    for (name, first), values in times.items():
        text = f"{statistics.median(values):.4f} ({min(values):.4f} to {max(values):.4f})"
        print(f"{name}, from step {first}: {text} CPU seconds a step")
    return {each: min(values) for each, values in times.items()}


def block(config: Config, first: int) -> Callable[[], None]:
    """A few training steps on random images, counted from ``first``."""
    engine, task = Engine("fp32"), build_task(config)
    engine.prepare(task, build_networks(task, config))
    count, size = config.train.global_batch_size, config.data.image_size
    images = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)
    sampler = Sampler(0, count, count, flip=True, noise_shape=(task.candidates, *task.noise_shape(size)))
    share = Share(sampler, task.color_space, engine.device, engine.dtype, None, 0, 1)
    loader = ResidentLoader(images, share)

    def work() -> None:
        for step in range(first, first + _BLOCK):
            engine.step(task, loader.micro_batches(step), step)

    return work


def groups(jobs: Sequence[Job]) -> dict[str, list[Run]]:
    """The finished runs by group, in the order of the jobs."""
    found: dict[str, list[RunFolder]] = {}
    for job in jobs:
        if job.group and job.finished:
            found.setdefault(job.group, []).append(job.folder)
    return {group: [load_run(each) for each in folders] for group, folders in found.items()}


def spreads(runs: Sequence[Run]) -> dict[str, Spread]:
    """Mean and range of each last score."""
    scores = {name: [run.scores[name] for run in runs] for name in runs[0].scores}
    return {name: spread(values) for name, values in scores.items()}


def spread(values: Sequence[float]) -> Spread:
    """Mean and range."""
    return {"mean": sum(values) / len(values), "min": min(values), "max": max(values), "n": len(values)}


def as_text(found: Spread | None, digits: int) -> str:
    """A spread as text. None: no such score."""
    if found is None:
        return "-"
    mean, low, high = (f"{found[key]:.{digits}f}" for key in ("mean", "min", "max"))
    return f"{mean} ({low} to {high}, n={found['n']:.0f})" if found["n"] > 1 else f"{mean} (n=1)"


def table(found: Mapping[str, Sequence[Run]], shown: Sequence[str]) -> str:
    """In Markdown: baselines, groups, oracle and target. shown: names of metrics."""
    first = next(iter(found.values()))[0]
    scored = {name for runs in found.values() for name in runs[0].scores}
    metrics = [each for each in first.specs.metrics if each.name in shown and each.name in scored]

    def references(*roles: ReferenceRole) -> list[list[str]]:
        rows = [(each.label, first.references.get(each.name, {})) for each in first.specs.of_role(*roles)]
        return [[label, *(each.format(row.get(each.name, math.nan)) for each in metrics)] for label, row in rows]

    lines = [["", *(f"{each.label} {each.arrow}" for each in metrics)], ["---"] * (1 + len(metrics))]
    lines += references("baseline")
    for group, runs in found.items():
        scores = spreads(runs)
        lines.append([group, *(as_text(scores.get(each.name), each.digits) for each in metrics)])
    return "\n".join(f"| {' | '.join(line)} |" for line in [*lines, *references("oracle", "target")])
