"""What each choice that makes a step fast is worth: the trainer as it is beside the trainer with one thing otherwise.

    python benchmarks/choices.py --json choices.json
    python benchmarks/choices.py --arms "compiled" "bf16" --set data.image_size=256 train.global_batch_size=4

Each arm is a process of its own: some choices are made once for all. They train in turns, one at a time, a block of
steps each; the order changes from round to round. Told is how long a step takes, over how long it takes as it is:
above 1, the choice is the right one. ``compiled``, ``bf16``, ``huge pages`` and ``one thread`` are not what the
trainer does by itself. All arms are in memory at once, about 1 GB each.
"""

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from measuring import hardware, summary, told
from torch import Tensor

from colordist.cli import parse
from colordist.data.loader import Batch
from colordist.engine.network import Network
from colordist.engine.runtime import Engine
from colordist.run.folder import RunFolder
from colordist.tasks.base import Calls, Task
from colordist.tasks.cgan import CGANTask
from colordist.training.build import build_trainer
from colordist.training.trainer import Trainer

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Arm:
    """One thing otherwise: in the settings, in the environment, before the trainer is built or after."""

    settings: Mapping[str, object] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    before: Callable[[], object] = lambda: None
    after: Callable[[Trainer], object] = lambda _: None


def _contiguous(trainer: Trainer) -> None:
    """Weights as PyTorch lays them out by itself; images follow."""
    for network in trainer.engine.networks.values():
        for module in [network.module] + ([network.ema.module] if network.ema else []):
            module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def _adam(**how: bool) -> Callable[[Trainer], None]:
    def otherwise(trainer: Trainer) -> None:
        for network in trainer.engine.networks.values():
            network.optimizer = torch.optim.Adam(network.trainable_parameters, betas=(0.5, 0.99), **how)
            # Others than the fused one can't be told to skip.
            network.optimizer.register_step_pre_hook(lambda adam, *_: setattr(adam, "found_inf", None))

    return otherwise


def _two_passes() -> None:
    """The discriminator sees true and generated colours one after the other."""
    judge = CGANTask._judge

    def in_halves(self: CGANTask, calls: Calls, batch: Batch, colors: Tensor) -> Tensor:
        return torch.cat([judge(self, calls, batch, part) for part in colors.split(len(batch))])

    patch.object(CGANTask, "_judge", in_halves).start()


def _generator_twice() -> None:
    """Each phase has its colours made again, as in a loop over phases that knows nothing of the step."""

    def phase_by_phase(self: Engine, task: Task, batches: list[Batch], step: int) -> dict[str, Tensor]:
        log: dict[str, Tensor] = {}
        for phase in task.phases(step):
            log |= self._run_phase(task, phase, batches, None, step)
        return log

    patch.object(Engine, "step", phase_by_phase).start()


def _not_frozen() -> None:
    """The generator's turn computes the discriminator's gradients as well, and throws them away."""
    set_trainable = Network.set_trainable
    patch.object(Network, "wake", lambda self, trainable: set_trainable(self, True)).start()


def _waits_each_step() -> None:
    """Every number is asked for after every step."""
    step = Engine.step

    def and_tell(self: Engine, *arguments: Any) -> dict[str, Tensor]:  # noqa: ANN401  as Engine.step has them
        log = step(self, *arguments)
        for value in log.values():
            value.item()
        return log

    patch.object(Engine, "step", and_tell).start()


ARMS: dict[str, Arm] = {
    "as it is": Arm(),
    "as it is, again": Arm(),  # what noise makes of no difference at all
    "freed memory given back": Arm(before=lambda: patch("colordist.engine.runtime.keep_freed_memory").start()),
    "huge pages": Arm(environment={"THP_MEM_ALLOC_ENABLE": "1"}),
    "not channels_last": Arm(after=_contiguous),
    "foreach Adam": Arm(after=_adam(foreach=True)),
    "Adam in a loop": Arm(after=_adam(foreach=False)),
    "discriminator in two passes": Arm(before=_two_passes),
    "generator run in each phase": Arm(before=_generator_twice),
    "discriminator not frozen": Arm(before=_not_frozen),
    "numbers asked for each step": Arm(before=_waits_each_step),
    "threads that watch for long": Arm(environment={"GOMP_SPINCOUNT": "300000"}),  # the default
    "one thread": Arm(after=lambda _: torch.set_num_threads(1)),
    "compiled": Arm({"train.compile": "default"}),
    "bf16": Arm({"train.precision": "bf16"}),
}


# --- in the process of an arm


def work(arm: Arm, options: argparse.Namespace) -> None:
    """Train a block for each line of standard input; answer with its seconds a step."""
    answer = sys.stdout
    with tempfile.TemporaryDirectory(prefix="choices-") as folder, contextlib.redirect_stdout(io.StringIO()):
        arm.before()
        given = {"data.source": "synthetic", "data.train_images": 300, "data.test_images": 8, "loss.warmup_steps": 0}
        given |= {"log.every": 10**9, "evaluate.every": 10**9, "checkpoint.every": 10**9, "train.precision": "fp32"}
        lines = [*(f"{key}={value}" for key, value in (given | dict(arm.settings)).items()), *options.set]
        config = parse(["--config", str(options.config), *(f"--{line}" for line in lines)]).config
        trainer = build_trainer(config, RunFolder(Path(folder) / "run"))
        trainer.begin()
        arm.after(trainer)
        step = 0
        for _ in sys.stdin:
            begin = time.perf_counter()
            for _ in range(options.steps):
                trainer.advance(step)
                step += 1
            if trainer.engine.device.type == "cuda":
                torch.cuda.synchronize()
            print((time.perf_counter() - begin) / options.steps, file=answer, flush=True)
        trainer.close()


# --- what starts them


def ask(process: subprocess.Popen[str]) -> float:
    """Let an arm train a block. Returns seconds a step."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise SystemExit("an arm failed")
    return float(line)


def compare(names: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """All arms in turns; the first block of each warms up."""
    processes = {}
    try:
        for name in names:
            line = [sys.executable, __file__, *sys.argv[1:], "--work", name]
            processes[name] = subprocess.Popen(
                line,
                env={"GOMP_SPINCOUNT": "3000"} | os.environ | ARMS[name].environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            ask(processes[name])
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for turn in range(options.rounds):
            for name in names if turn % 2 else reversed(names):
                seconds[name].append(ask(processes[name]))
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    usual = seconds["as it is"]
    return {
        name: {
            "ratio": summary([one / other for one, other in zip(each, usual, strict=True)]),
            "seconds": summary(each),
        }
        for name, each in seconds.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "cgan.yaml")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS), metavar="ARM")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="any other settings")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=2, help="in a block")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--work", choices=list(ARMS), help=argparse.SUPPRESS)  # be an arm
    options = parser.parse_args()
    if options.work is not None:
        work(ARMS[options.work], options)
        return
    names = list(dict.fromkeys(["as it is", *options.arms]))
    found: dict[str, Any] = {"hardware": hardware(), "config": options.config.stem, "set": options.set}
    print(found["hardware"])
    found |= {"arms": compare(names, options), "load": os.getloadavg()[0]}
    for name, each in found["arms"].items():
        print(f"{name:30} {told(each['ratio'])}   {told(each['seconds'], 0, 1e3)} ms a step")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
