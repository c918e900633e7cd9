"""The trainer with a fault planted in one process: ``python faulty_worker.py RANK FAULT STEP ARGUMENT...``."""

import os
import signal
import sys
import threading
from typing import Any

import colordist.cli
import colordist.train
import colordist.training.build
from colordist.engine.runtime import Engine


def plant(fault: str, at: int) -> None:
    """Plant a fault in this process, at the start or in a step."""
    if fault == "other code":
        colordist.training.build.code_digest = lambda: "another"  # type: ignore[attr-defined]
    elif fault == "other settings":
        sys.argv += ["--data.seed", "7"]
    else:
        whole = Engine.step

        def step(engine: Engine, task: Any, batches: Any, number: int) -> Any:  # noqa: ANN401
            if number == at:
                happen(fault, task)
            return whole(engine, task, batches, number)

        Engine.step = step  # type: ignore[method-assign, assignment]


def happen(fault: str, task: Any) -> None:  # noqa: ANN401
    match fault:
        case "other weights":
            weights = next(task.networks["generator"].module.parameters()).data.view(-1)
            weights[3] += weights[3].abs() * 1e-15 + 1e-300
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "killed with its launcher":
            os.kill(os.getppid(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
        case "frozen":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "hangs":
            threading.Event().wait()
        case "fails":
            raise KeyError("planted")
        case _:
            raise ValueError(fault)


if __name__ == "__main__":
    rank, fault, at, *sys.argv[1:] = sys.argv[1:]
    colordist.cli._GRACE = 1.0
    if os.environ["RANK"] == rank:
        plant(fault, int(at))
    colordist.train.main()
