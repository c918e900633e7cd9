"""Compares ways of doing something: runs them alternately (A B B A) and reports medians and ranges.

A benchmark of training names its arms and calls ``main``. Each arm runs in processes of its own, started from the
benchmark's own file, which train a block of steps on request. So an arm may change process-wide settings, and only one
arm computes at a time.
"""

import argparse
import contextlib
import io
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.profiler import ProfilerActivity, profile

from colordist import registry
from colordist.config import Config
from colordist.keys import flatten, nest
from colordist.run.folder import RunFolder
from colordist.training.build import build_trainer
from colordist.training.trainer import Trainer

ROOT = Path(__file__).parents[1]
Results = dict[str, Any]
# Few images, no warm-up, no logging, evaluation or checkpoint between two steps.
SETTINGS: dict[str, object] = {"data.source": "synthetic", "data.classes": "all"}
SETTINGS |= {"data.train_images": 300, "data.test_images": 8, "task.warmup_steps": 0, "train.steps": 10**6}
SETTINGS |= {"log.every": 10**9, "evaluate.every": 10**9, "checkpoint.every": 10**9}


# --- numbers


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values)}


def as_text(values: Mapping[str, float], digits: int = 3, scale: float = 1.0) -> str:
    """A summary as text."""
    middle, low, high = (f"{scale * values[key]:.{digits}f}" for key in ("median", "min", "max"))
    return f"{middle} ({low} to {high}, n = {values['n']})"


def ratio(values: Mapping[str, Sequence[float]], one: str, other: str) -> dict[str, float]:
    """Summary of the ratios, round by round, of one arm's values to another's."""
    return summary([a / b for a, b in zip(values[one], values[other], strict=True)])


def alternate(arms: Mapping[str, Callable[[], float]], rounds: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Each arm's measurements, one per round; the order is reversed from round to round.

    warm_up: rounds before these, which aren't counted.
    """
    found: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(warm_up + rounds):
        for name in list(arms) if number % 2 else reversed(list(arms)):
            value = arms[name]()
            if number >= warm_up:
                found[name].append(value)
    return found


def timed(work: Callable[[], object]) -> float:
    """Seconds that some work takes, on the GPU too."""
    synchronize()
    begin = time.perf_counter()
    work()
    synchronize()
    return time.perf_counter() - begin


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


# --- command line and config


def arguments(doc: str | None, rounds: int, config: str | None = None) -> argparse.ArgumentParser:
    """A parser with common options. rounds: the default. config: the default, a file in configs/; None: no config."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the results")
    if config is not None:
        parser.add_argument("--config", type=Path, default=ROOT / "configs" / f"{config}.yaml")
        parser.add_argument("--set", nargs="*", action="extend", default=[], metavar="KEY=VALUE", help="other settings")
    return parser


def load(
    options: argparse.Namespace, settings: Mapping[str, object] | None = None, arm: Mapping[str, object] | None = None
) -> Config:
    """The config, with the settings of all benchmarks, of this one, of ``--set`` and of an arm: the last one counts."""
    given = {key: yaml.safe_load(value) for key, _, value in (each.partition("=") for each in options.set)}
    return config_of(options.config, (settings or {}) | given | (arm or {}), SETTINGS)


def config_of(file: Path, settings: Mapping[str, object], defaults: Mapping[str, object] | None = None) -> Config:
    """A YAML file with settings by dotted key. Not read by the command line's parser, which a GPU machine may lack.

    defaults: settings that replace the file's where the chosen components have them. What the file says of components
    that are not chosen is left out. Raises UserError for an unknown key in settings.
    """
    usual = flatten(yaml.safe_load(file.read_text())) | (defaults or {})
    known = flatten(registry.defaults(registry.Names.of(nest(usual | settings))))
    return registry.make_config(nest({key: usual[key] for key in usual if key in known} | settings))


def hardware() -> str:
    """The processor and how many cores are available, the GPU if there is one, and the version of PyTorch."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{names[0] if names else platform.machine()}, {cores} cores{gpu}, torch {torch.__version__}"


def finish(options: argparse.Namespace, found: Results) -> None:
    """Write the results, with hardware and load."""
    found = {"hardware": hardware(), "load": os.getloadavg()[0]} | found
    print(f"{found['hardware']}; load {found['load']:.1f}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


# --- an arm, in its processes


@dataclass
class Training:
    """What an arm trains."""

    advance: Callable[[int], object]
    """Run the step of this number."""
    extras: Callable[[int], Results] = lambda step: {}
    """Further results, asked for after all blocks. step: the next one."""


@contextmanager
def open_trainer(config: Config) -> Iterator[Trainer]:
    """A trainer that has begun a run in a temporary folder. Nothing is printed."""
    with contextlib.redirect_stdout(io.StringIO()), tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        trainer = build_trainer(config, RunFolder(Path(folder) / "run"))
        trainer.start()
        yield trainer
        trainer.close()
        trainer.engine.close()


@contextmanager
def unchanged(config: Config) -> Iterator[Training]:
    """The trainer as it is: with log, signals and failure detector."""
    with open_trainer(config) as trainer:
        yield Training(trainer.advance)


@dataclass(frozen=True)
class Arm:
    """A way of training."""

    start: Callable[[Config], AbstractContextManager[Training]] = unchanged
    settings: Mapping[str, object] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


def serve(arm: Arm, options: argparse.Namespace, settings: Mapping[str, object]) -> None:
    """Answer each line of standard input: ``block 5``, with the seconds of five steps, or ``extras``."""
    answers, step = sys.stdout, 0
    with contextlib.redirect_stdout(io.StringIO()), arm.start(load(options, settings, arm.settings)) as training:
        for line in sys.stdin:
            what, *count = line.split()
            if what == "extras":
                answer: object = training.extras(step)
            else:
                steps = range(step, step + int(count[0]))
                answer = timed(lambda steps=steps: [training.advance(each) for each in steps])  # type: ignore[misc]
                step = steps.stop
            print(json.dumps(answer), file=answers, flush=True)


class Processes:
    """The processes of an arm, which work together."""

    def __init__(
        self, command: Sequence[str], count: int, environment: Mapping[str, str], address: str = "127.0.0.1"
    ) -> None:
        """address: of the rendezvous."""
        quiet = {"TORCH_CPP_LOG_LEVEL": "ERROR", "PYTHONWARNINGS": "ignore", "KINETO_LOG_LEVEL": "99"}
        shared = {"GOMP_SPINCOUNT": "3000"} | quiet | os.environ | dict(environment)
        if torch.cuda.device_count() < count:
            shared["ACCELERATE_USE_CPU"] = "true"
        if count > 1:
            shared |= {"MASTER_ADDR": address, "MASTER_PORT": str(free_port())}
            shared |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
        self.processes = []
        for rank in range(count):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if count > 1 else {}
            self.processes.append(
                subprocess.Popen(
                    command, env=shared | own, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
                )
            )

    def ask(self, request: str) -> list[Any]:
        """Their answers, by rank. Raises SystemExit if one has failed."""
        for process in self.processes:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(f"{request}\n")
        lines = [process.stdout.readline() for process in self.processes if process.stdout is not None]
        if not all(lines):
            raise SystemExit(f"a process failed, see above: {' '.join(map(str, self.processes[0].args))}")  # type: ignore[arg-type]
        return [json.loads(line) for line in lines]

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


def free_port() -> int:
    """A free port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def traffic(advance: Callable[[int], object], step: int) -> Results:
    """Gradient bytes and all-reduces of a step, as gloo sees them; empty on one process."""
    if not torch.distributed.is_initialized():
        return {}
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        advance(step)
    reduced = [event for event in profiler.events() or [] if event.name == "gloo:all_reduce"]
    return {
        "gradient_bytes": sum(4 * size for event in reduced for (size,) in event.input_shapes),  # all float32
        "gradient_all_reduces": len(reduced),
    }


# --- comparing them


def compare(
    names: Sequence[str], start: Callable[[str], Processes], options: argparse.Namespace
) -> tuple[Results, dict[str, list[float]]]:
    """Run all arms alternately, compared with the first. Returns results, and seconds per step by arm and round."""
    with ExitStack() as stack:
        arms = {name: stack.enter_context(start(name)) for name in names}
        blocks = {
            name: lambda arm=arm: max(arm.ask(f"block {options.steps}")) / options.steps for name, arm in arms.items()
        }
        seconds = alternate(blocks, options.rounds)  # type: ignore[arg-type]
        extras = {name: arm.ask("extras")[0] for name, arm in arms.items()}
    first, *others = names
    found: Results = {
        "arms": {
            name: {"ratio": ratio(seconds, name, first), "seconds": summary(seconds[name])} | extras[name]
            for name in names
        }
    }
    if len(others) == 1:
        found["ratio"] = ratio(seconds, others[0], first)
    for name, arm in found["arms"].items():
        compared = as_text(arm["ratio"]) if name != first else ""
        more = ", ".join(f"{key} {value:,}" for key, value in extras[name].items() if isinstance(value, int))
        print(f"  {name:30} {compared:40} {as_text(arm['seconds'], 1, 1e3)} ms per step {more}", flush=True)
    return found, seconds


def main(
    doc: str | None,
    arms: Mapping[str, Arm],
    *,
    settings: Mapping[str, object],
    prepare: Callable[[argparse.Namespace, Path], Mapping[str, object]] = lambda options, folder: {},
    processes: Sequence[int] = (1,),
    rounds: int = 8,
    steps: int = 5,
) -> None:
    """A benchmark whose arms are compared with the first of them, on one process or several.

    settings: of all arms. prepare: makes what they need in a folder, and returns further settings.
    """
    parser = arguments(doc, rounds, "cgan")
    parser.add_argument("--arms", nargs="+", default=list(arms), choices=list(arms), metavar="ARM")
    parser.add_argument("--processes", type=int, nargs="+", default=list(processes), help="numbers of processes")
    parser.add_argument("--steps", type=int, default=steps, help="in a block")
    parser.add_argument("--arm", choices=list(arms), help=argparse.SUPPRESS)  # run as a process of this arm
    options = parser.parse_args()
    if options.arm is not None:
        serve(arms[options.arm], options, settings)
        return
    names = list(dict.fromkeys([next(iter(arms)), *options.arms]))
    found: Results = {"config": options.config.stem, "set": options.set, "steps_per_block": options.steps}
    found["processes"] = {}
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        more = [f"{key}={value}" for key, value in prepare(options, Path(folder)).items()]
        for count in options.processes:

            def start(name: str, count: int = count) -> Processes:
                command = [sys.executable, *sys.argv, "--arm", name, *(["--set", *more] if more else [])]
                return Processes(command, count, arms[name].environment)

            print(f"{count} process{'es' if count > 1 else ''}, time of a step over that of {names[0]}:")
            found["processes"][str(count)], _ = compare(names, start, options)
    finish(options, found)
