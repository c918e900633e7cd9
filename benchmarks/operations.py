"""Operations of a training step by part: kernels and copies that are handed over to the device.

    python benchmarks/operations.py --json operations.json          on a GPU, by PyTorch's profiler
    python benchmarks/operations.py --null --set train.precision=bf16 train.global_batch_size=64     without one

``--null`` builds the null device of tests/null, a CUDA runtime that computes nothing, and counts what it is given; what
cuDNN launches counts as one operation there. A fast GPU waits for operations to be handed over while images are few.
The counts are of one step after the warm-up, after two others: there is no spread.
"""

import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from harness import ROOT, Results, arguments, finish, load, open_trainer
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from colordist.data.loader import ResidentLoader
from colordist.engine.ddp import DDPStrategy
from colordist.training.meter import Meter
from colordist.training.trainer import Trainer

PARTS: dict[str, tuple[type, str]] = {
    "loader": (ResidentLoader, "micro_batches"),
    "spectral norm": (DDPStrategy, "begin_phase"),
    "backward": (DDPStrategy, "backward"),
    "update": (DDPStrategy, "update"),
    "EMA": (DDPStrategy, "update_ema"),
    "log": (Meter, "add"),
}
"""Methods of a step, by part; those of a task are added."""

Count = Callable[[Callable[[], Any]], tuple[Any, int]]
"""Runs some work. Returns its result and the number of its operations."""


def profiled(work: Callable[[], Any]) -> tuple[Any, int]:
    """Operations that a GPU ran, as a ``Count``."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        result = work()
        torch.cuda.synchronize()
    events = [each for each in profiler.events() or [] if each.device_type == DeviceType.CUDA]
    return result, sum(not each.is_user_annotation for each in events)


def handed_over(work: Callable[[], Any]) -> tuple[Any, int]:
    """Operations that the null device was given, as a ``Count``."""
    null_device = importlib.import_module("null_device")
    before = null_device.counts()
    result = work()
    found = null_device.counts() - before
    return result, sum(found[name] for name in null_device.OPERATIONS)


@contextmanager
def parted(trainer: Trainer, count: Count) -> Iterator[dict[str, int]]:
    """Counts the operations of each part."""
    found: dict[str, int] = {}
    task = type(trainer.task)
    with ExitStack() as stack:
        for part, (kind, name) in (PARTS | {"generators": (task, "generate"), "losses": (task, "loss")}).items():
            stack.enter_context(patch.object(kind, name, _counted(getattr(kind, name), part, count, found)))
        yield found


def _counted(method: Callable[..., Any], part: str, count: Count, found: dict[str, int]) -> Callable[..., Any]:
    def counted(*inputs: Any, **options: Any) -> Any:  # noqa: ANN401  the method's
        result, operations = count(lambda: method(*inputs, **options))
        found[part] = found.get(part, 0) + operations
        return result

    return counted


def operations(trainer: Trainer, count: Count) -> Results:
    """Operations of a step: of all of it, and by part."""
    for step in range(2):  # the first makes the optimizer's states
        trainer.advance(step)
    with parted(trainer, count) as parts:
        trainer.advance(2)
    total = count(lambda: trainer.advance(3))[1]
    return {"operations": total, "parts": parts | {"rest": total - sum(parts.values())}}


def on_the_null_device() -> int:
    """Run this script again, on the null device. Returns its exit code."""
    sys.path += [str(ROOT / "tests" / "null"), str(ROOT / "tests" / "unit")]
    null_build = importlib.import_module("null_build")
    if reason := null_build.why_not():
        sys.exit(f"operations.py: --null {reason}")
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        environment = null_build.environment(null_build.build(Path(folder)))
        return subprocess.run([sys.executable, *sys.argv], env=environment, check=False).returncode


def main() -> int:
    """Count the operations of a step. Returns the exit code."""
    parser = arguments(__doc__, 1, "cgan")
    parser.add_argument("--null", action="store_true", help="on the null device of tests/null")
    options = parser.parse_args()
    if options.null and "NULL_DEVICES" not in os.environ:
        return on_the_null_device()
    if options.null:
        importlib.import_module("null_device")  # makes up for kernels that aren't run
    elif not torch.cuda.is_available():
        print("operations.py: torch sees no GPU here: try --null", file=sys.stderr)
        return 2
    with open_trainer(load(options)) as trainer:
        found = operations(trainer, handed_over if options.null else profiled)
        precision = trainer.engine.precision
    parts = ", ".join(f"{part} {number}" for part, number in found["parts"].items())
    print(f"{options.config.stem}, {precision}: {found['operations']} operations a step ({parts})")
    finish(options, {"config": options.config.stem, "set": options.set, "precision": precision} | found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
