"""Several trainings, one after the other, in the processes of one launch, which takes longer than most trainings.

    accelerate launch --multi_gpu --num_processes 2 ... worker.py JOBS.json

A job is ``{"run": FOLDER, "settings": {"train.steps": 5}}``. Files in the run folder, besides the run's own:

- ``seen-RANK.json``: digests of the images of each step, the final error, parameter counts, digests of the final state;
- ``state.pt``: ``Engine.state_dict()`` at the end, and the gathered state of the task as ``task``, from rank 0;
- ``trace-RANK.json``, for jobs with ``"trace": STEP``: events of the profiler from that step on.

``"plant": {"network": N, "steps": [...], "rank": R, "value": "nan"}`` makes a network's losses Inf or NaN on one rank.
"""

import json
import math
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from helpers import config_with
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function

from colordist.data.batch import Batch
from colordist.errors import RunError, UserError
from colordist.run.folder import RunFolder
from colordist.tasks.base import Calls, Generated, Loss, Task
from colordist.training.build import build_trainer
from colordist.training.trainer import Trainer

Job = dict[str, Any]
_ITEMSIZE = {"float": 4, "double": 8}
# Prefixes of the events kept of a trace: our marks, collectives, and backward passes of convolutions.
_KEPT = ("phase ", "after ", "c10d::", "gloo:", "autograd::engine::evaluate_function: ConvolutionBackward0")


def main(jobs: list[Job]) -> None:
    """Run all jobs."""
    for job in jobs:
        trainer = do(job)
        trainer.engine.wait()
        trainer.engine.monitor.close()  # the next job has its own
    trainer.engine.close()


def do(job: Job) -> Trainer:
    """Train, then write this rank's records."""
    folder = RunFolder(Path(job["run"]))
    trainer = build_trainer(config_with(job["settings"]), folder)
    torch.set_num_threads(1)  # networks this small are slower on several threads, much slower on a busy machine
    rank, error, images = trainer.engine.rank, None, note_images(trainer)
    if "plant" in job and job["plant"]["rank"] == rank:
        plant(trainer.task, job["plant"])
    finish_trace = begin_trace(trainer, job["trace"]) if "trace" in job else None
    try:
        trainer.fit()
    except (UserError, RunError) as failure:
        error = f"{type(failure).__name__}: {failure}"
    finally:
        trainer.close()
    if finish_trace is not None:
        (folder.path / f"trace-{rank}.json").write_text(json.dumps(finish_trace(folder.path / f"chrome-{rank}.json")))
    state, rows = trainer.engine.state_dict(), trainer.engine.gather_state(trainer.task.state)
    if rank == 0:
        torch.save(state | {"task": rows}, folder.path / "state.pt")
    parameters = {name: network.trainable_parameter_count() for name, network in trainer.engine.networks.items()}
    seen = {"images": images, "error": error, "parameters": parameters, "digests": digests(state)}
    (folder.path / f"seen-{rank}.json").write_text(json.dumps(seen))
    return trainer


def note_images(trainer: Trainer) -> list[list[int]]:
    """Record digests of the images of each step, in order, as the networks get them."""
    noted: list[list[int]] = []
    real = trainer.engine.step

    def step(task: Task, batches: list[Batch], step: int) -> dict[str, Tensor]:
        seen = [torch.cat([batch.grey, batch.target_grey], dim=1) for batch in batches]
        grey = torch.cat(seen) * 127.5 + 127.5
        noted.append([zlib.crc32(image.numpy().tobytes()) for image in grey.round().to(torch.uint8)])
        return real(task, batches, step)

    trainer.engine.step = step  # type: ignore[method-assign]
    return noted


def plant(task: Task, what: dict[str, Any]) -> None:
    """Multiply losses of one network, and their logged parts, by Inf or NaN."""
    real = task.loss

    def loss(phase: str, calls: Calls, batch: Batch, generated: Generated, step: int) -> Loss:
        found = real(phase, calls, batch, generated, step)
        if phase != what["network"] or step not in what["steps"]:
            return found
        spoiled = float(what["value"])
        return Loss(found.total * spoiled, {name: part * spoiled for name, part in found.terms.items()}, found.state)

    task.loss = loss  # type: ignore[method-assign]


def begin_trace(trainer: Trainer, first: int) -> Callable[[Path], list[dict[str, Any]]]:
    """Start the profiler at a step. Returns a function that stops it and returns its events, in order."""
    profiler = profile(activities=[ProfilerActivity.CPU], record_shapes=True)
    real = trainer.engine.step

    def mark(name: str) -> None:
        with record_function(name):
            pass

    def step(task: Task, batches: list[Batch], step: int) -> dict[str, Tensor]:
        if step == first:
            profiler.start()
        log = real(task, batches, step)
        mark(f"after {step}")
        return log

    def announce(name: str, begin_phase: Callable[[int], None]) -> Callable[[int], None]:
        def announced(step: int) -> None:
            mark(f"phase {step} {name}")
            begin_phase(step)

        return announced

    trainer.engine.step = step  # type: ignore[method-assign]
    for name, network in trainer.engine.networks.items():
        network.begin_phase = announce(name, network.begin_phase)  # type: ignore[method-assign,assignment]

    def finish(file: Path) -> list[dict[str, Any]]:
        profiler.stop()
        profiler.export_chrome_trace(str(file))
        events = [each for each in json.loads(file.read_text())["traceEvents"] if each["name"].startswith(_KEPT)]
        return [
            {"name": each["name"], "start": each["ts"], "end": each["ts"] + each["dur"], "bytes": size_of(each)}
            for each in sorted(events, key=lambda each: float(each["ts"]))
            if each["ph"] == "X"
        ]

    return finish


def size_of(event: dict[str, Any]) -> int | None:
    """Bytes of an event's tensors, None where their types are unknown."""
    arguments = event["args"]
    types, shapes = arguments.get("Input type", []), arguments.get("Input Dims", [])
    if not set(types) <= set(_ITEMSIZE):
        return None
    sizes: list[int] = [_ITEMSIZE[kind] * math.prod(shape) for kind, shape in zip(types, shapes, strict=True)]
    return sum(sizes)


def digests(state: object, name: str = "") -> dict[str, int]:
    """Digests of tensors, by path."""
    if isinstance(state, Tensor):
        return {name: zlib.crc32(state.contiguous().numpy().tobytes())}
    parts = state.items() if isinstance(state, dict) else ()
    return {path: value for key, part in parts for path, value in digests(part, f"{name}/{key}").items()}


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
