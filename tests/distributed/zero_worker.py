"""Runs several trainings in one launch: ``zero_worker.py jobs.json``, a list of [action, command-line arguments...].

DeepSpeed partitions even the smallest weights here, in small buckets. Each job writes reports into its run folder.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from colordist.cli.parser import parse
from colordist.engine.strategy import Strategy
from colordist.run import checkpoint
from colordist.run.folder import RunFolder, folder_for, step_name
from colordist.training.build import build_trainer
from colordist.training.trainer import Trainer

RANK = int(os.environ.get("RANK", "0"))
PLANTED = {2: "discriminator", 4: "generator"}
"""The network whose loss is Inf on one rank, by step."""


def train(trainer: Trainer) -> None:
    """Train to the end. Reports whether a continued run was loaded exactly, and this rank's partitions."""
    if start := trainer.restore():
        report(trainer, "loaded", is_as_saved(trainer, start))
    kinds: dict[str, str] = {}
    for name, strategy in trainer.engine.strategies.items():
        layer = next(layer for layer in strategy.network.module.modules() if isinstance(layer, nn.Conv2d))
        layer.register_forward_hook(lambda _, __, out, name=name: kinds.update({name: str(out.dtype)}))
    trainer.fit()
    report(trainer, "kept", {name: kept(each) | {"computes": kinds[name]} for name, each in strategies(trainer)})


def is_as_saved(trainer: Trainer, start: int) -> bool:
    """Whether the engine's state is bit-equal to the checkpoint's."""
    saved = checkpoint.load(trainer.folder.checkpoints / step_name(start))["networks"]

    def same(one: Any, two: Any) -> bool:  # noqa: ANN401  nested dicts of tensors and plain values
        if isinstance(one, dict):
            return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
        return torch.equal(one, two) if isinstance(one, Tensor) else bool(one == two)

    return same(saved, trainer.engine.state_dict())


def strategies(trainer: Trainer) -> list[tuple[str, Strategy]]:
    """Strategies of all networks, by name."""
    return list(trainer.engine.strategies.items())


def kept(strategy: Strategy) -> dict[str, Any]:
    """Number of elements of weights and moments on this rank."""
    parameters = list(strategy.network.module.parameters())
    return {
        "engine": type(strategy).__name__,
        "moments": sum(state["exp_avg"].numel() for state in strategy.network.optimizer.state.values()),
        "weights": sum(parameter.numel() for parameter in parameters),
        "types": sorted({str(parameter.dtype) for parameter in parameters}),
    }


def plant(trainer: Trainer) -> None:
    """Run six steps, in two of which the loss of the last rank's first micro-batch is Inf."""
    engine, task, loss = trainer.engine, trainer.task, trainer.task.loss
    found: list[tuple[int, str, float, bool]] = []
    calls: list[str] = []

    def planted(phase: str, *arguments: Any) -> Any:  # noqa: ANN401  as Task.loss
        answer, step = loss(phase, *arguments), arguments[-1]
        calls.append(phase)
        if engine.rank == engine.world_size - 1 and PLANTED.get(step) == phase and calls.count(phase) == 1:
            return type(answer)(answer.total * float("inf"), answer.terms)
        return answer

    task.loss = planted  # type: ignore[method-assign,assignment]
    for step in range(6):
        calls.clear()
        before = {name: state(strategy) for name, strategy in strategies(trainer)}
        log = engine.step(task, trainer.loader.micro_batches(step), step)
        for name, strategy in strategies(trainer):
            changed = any(not torch.equal(old, new) for old, new in zip(before[name], state(strategy), strict=False))
            found.append((step, name, float(log[f"diagnostics/{name}/skipped"]), changed))
    report(trainer, "planted", found)
    torch.save([state(strategy) for _, strategy in strategies(trainer)], trainer.folder.path / f"weights-{RANK}.pt")


def state(strategy: Strategy) -> list[Tensor]:
    """Copies of all tensors that an update changes: weights, then Adam's moments."""
    state, names = strategy.state_dict(), [name for name, _ in strategy.network.module.named_parameters()]
    moments = [moment for moments in state["optimizer"]["state"].values() for moment in moments.values()]
    return [tensor.clone() for tensor in [state["module"][name] for name in names] + moments]


def misuse(trainer: Trainer) -> None:
    """Save and load each network's state; then train one in another's phase, which must fail."""
    engine, batch = trainer.engine, trainer.loader.micro_batches(0)[0]
    engine.step(trainer.task, [batch], 0)
    found = []
    for _, strategy in strategies(trainer):
        before = state(strategy)
        strategy.load_state_dict(strategy.state_dict())
        found.append("the same" if all(map(torch.equal, before, state(strategy))) else "other")
    discriminator = engine.strategies["discriminator"]
    discriminator.network.module.requires_grad_(True)
    for mistake in (discriminator.frozen, lambda *inputs: learn(discriminator, *inputs)):
        try:
            mistake(batch.grey, batch.target)
        except RuntimeError as error:
            found.append(str(error))
    report(trainer, "misuse", found)


def learn(strategy: Strategy, *inputs: Tensor) -> None:
    """Accumulate gradients before a phase begins."""
    strategy.network.module(*inputs).sum().backward()
    strategy.begin_phase(1)


def report(trainer: Trainer, name: str, found: Any) -> None:  # noqa: ANN401  whatever JSON takes
    """Write a report of this rank into the run folder."""
    (trainer.folder.path / f"{name}-{RANK}.json").write_text(json.dumps(found))


def fork(run: str, copy: str) -> None:
    """Copy a finished run, in its state after step 10."""
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("finished", "step-000020*"), symlinks=True)


JOBS: dict[str, Callable[[Trainer], None]] = {"train": train, "plant": plant, "misuse": misuse}


def main() -> None:
    """Run all jobs, one after the other."""
    if "RANK" not in os.environ:  # networks this small are slower on several threads
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        os.environ["DS_ACCELERATOR"] = "cpu"
        from colordist.engine import deepspeed

        deepspeed.PERSISTENCE_THRESHOLD, deepspeed.BUCKET = 0, 500
    for job, *arguments in json.loads(Path(sys.argv[1]).read_text()):
        if job == "fork":
            if RANK == 0:  # the others wait for it in the next job's first collective
                fork(*arguments)
            continue
        config = parse(arguments).config
        AcceleratorState._reset_state()  # the next job may have another precision
        trainer = build_trainer(config, RunFolder(folder_for(config, job)))
        JOBS[job](trainer)
        trainer.close()
    trainer.engine.close()


if __name__ == "__main__":
    main()
