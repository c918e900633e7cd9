"""Several trainings, one after the other, in the processes of one launch, each killed once at given moments.

    accelerate launch --multi_gpu --num_processes 2 --max_restarts 9 ... mortal.py JOBS.json

A job is ``{"run": FOLDER, "settings": {"train.steps": 5}, "deaths": [...], "stop": STEP}``. ``stop``: request a stop
after that step. Each start appends a line to ``JOBS.starts``. A death is one of

- ``{"ranks": [0, 1], "step": 4}``: right after that step;
- ``{"ranks": [0], "step": 4, "operation": 7}``: at a file operation, while the checkpoint of that step is written.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate.state import AcceleratorState
from faults import watched
from helpers import config_with
from torch import Tensor

from colordist.cli import run
from colordist.data.batch import Batch
from colordist.run import checkpoint
from colordist.run.folder import RunFolder
from colordist.tasks.base import Task
from colordist.training.build import build_trainer
from colordist.training.stop_requests import StopRequests
from colordist.training.trainer import Trainer

Job = dict[str, Any]


def main() -> None:
    """Run all jobs."""
    file = Path(sys.argv[1])
    jobs: list[Job] = json.loads(file.read_text())
    if os.environ.get("RANK", "0") == "0":
        with file.with_suffix(".starts").open("a") as starts:
            starts.write("started\n")
    trainer = None
    for job in jobs:
        if RunFolder(Path(job["run"])).is_finished(job["settings"]["train.steps"]):
            continue
        AcceleratorState._reset_state()  # the next job may have another precision
        trainer = build_trainer(config_with(job["settings"]), RunFolder(Path(job["run"])), Requests(job.get("stop")))
        deaths = [Death(Path(job["run"]), trainer.engine.rank, **each) for each in job.get("deaths", [])]
        prepare(trainer, [death for death in deaths if death.awaits])
        try:
            trainer.fit()
        finally:
            trainer.close()
        trainer.engine.wait()
        trainer.engine.monitor.close()  # the next job has its own
    if trainer is not None:
        trainer.engine.close()


class Requests(StopRequests):
    """Requests a stop after a step."""

    def __init__(self, step: int | None) -> None:
        super().__init__()
        self.step, self.done = step, 0

    def reason(self, file: Path | None = None, max_minutes: float | None = None) -> str | None:
        return "so planned" if self.step is not None and self.done >= self.step else None


class Death:
    """A planned kill of this process."""

    def __init__(self, run: Path, rank: int, ranks: list[int], step: int, operation: int | None = None) -> None:
        self.step, self.operation = step, operation
        self.mark = run.with_name(f"{run.name}.died-{step}-{rank}")
        self.awaits = rank in ranks and not self.mark.exists()

    def come(self) -> None:
        self.mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)

    def at(self, operation: int) -> Callable[[str], None]:
        """Kill at the operation of this number, from 1."""
        count = 0

        def fault(_: str) -> None:
            nonlocal count
            count += 1
            if count == operation:
                self.come()

        return fault


def prepare(trainer: Trainer, deaths: list[Death]) -> None:
    """Patch the trainer so that the deaths occur as planned."""
    in_step = {death.step: death for death in deaths if death.operation is None}
    in_write = {death.step: death for death in deaths if death.operation is not None}
    real_step, real_save = trainer.engine.step, checkpoint.save

    def step(task: Task, batches: list[Batch], step: int) -> dict[str, Tensor]:
        log = real_step(task, batches, step)
        if isinstance(trainer.requests, Requests):
            trainer.requests.done = step + 1
        if step + 1 in in_step:
            in_step[step + 1].come()
        return log

    def save(folder: Path, step: int, *rest: Any) -> None:  # noqa: ANN401  the real one's
        death = in_write.get(step)
        with watched(death.at(death.operation) if death and death.operation else lambda name: None):
            real_save(folder, step, *rest)

    trainer.engine.step = step  # type: ignore[method-assign]
    if in_write and trainer.writer is not None:
        checkpoint.save = save  # type: ignore[assignment]


if __name__ == "__main__":
    run(main)
