"""The engine: the one place that knows Accelerate. It runs a step's phases on any number of processes.

In each phase one network learns. It is called through its wrapper, so its gradients are averaged over all processes,
once, while backward still runs. The others are frozen and called unwrapped: nothing of theirs is computed that nobody
uses, and nothing of theirs travels.
"""

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor

from colordist.config import RunError, UserError
from colordist.data.loader import Batch
from colordist.engine.ddp import DDPLearner
from colordist.engine.environment import device_type, refuse_unfit_launch, resolve_precision, set_numerics, share_cores
from colordist.engine.learner import Learner
from colordist.tasks.task import Calls, Task

_PATIENCE = timedelta(hours=1)  # others wait that long while one process of a machine fetches or decodes images


class Engine:
    """Runs a task's phases on whatever there is: one CPU or GPU, or many processes that work as one."""

    def __init__(self, precision: str, *, deterministic: bool = False, tf32: bool = False) -> None:
        kind = device_type()
        self.precision = resolve_precision(precision, kind)
        refuse_unfit_launch(kind, self.precision)
        share_cores()
        set_numerics(deterministic=deterministic, tf32=tf32)
        self.accelerator = Accelerator(
            cpu=kind == "cpu",
            mixed_precision=self.precision if self.precision in ("bf16", "fp16") else "no",
            kwargs_handlers=[
                # Buffers are the same on all processes, so there are none to broadcast.
                DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True),
                InitProcessGroupKwargs(timeout=_PATIENCE),
            ],
        )
        self.device: torch.device = self.accelerator.device
        self.rank: int = self.accelerator.process_index
        self.world_size: int = self.accelerator.num_processes
        self.is_main = self.rank == 0
        self.dtype = torch.float64 if self.precision == "fp64" else torch.float32
        self._learners: dict[str, Learner] = {}
        self._skipped_in_a_row: dict[str, Tensor] = {}
        expected = int(os.environ.get("WORLD_SIZE", "1"))
        if self.world_size != expected:
            raise UserError(f"{expected} processes were started, but this one sees only {self.world_size}")

    def prepare(self, task: Task) -> None:
        """Move the networks to the device and wrap them, each on its own."""
        for name, network in task.networks.items():
            for module in [network.module] + ([network.ema.module] if network.ema else []):
                module.to(device=self.device, dtype=self.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
            self._learners[name] = DDPLearner(network, self.accelerator)
            self._skipped_in_a_row[name] = torch.zeros((), device=self.device)

    def step(self, task: Task, batches: list[Batch], step: int) -> dict[str, Tensor]:
        """Run all phases of a step. Returns what to log, by "network/quantity": scalars, still on the device.

        batches: this process's micro-batches. A phase finishes all of them, and steps, before the next phase begins.
        With a single one, its colours are generated once and serve all phases; with several, keeping all their graphs
        would undo what micro-batches are for, so each phase generates them again.
        """
        colors = None
        if len(batches) == 1:
            colors = task.generate(self._wake(task.generators), batches[0])
        log: dict[str, Tensor] = {}
        for phase in task.phases(step):
            log |= self._turn(task, phase, batches, colors, step)
        sent = [learner.bytes_sent for name, learner in self._learners.items() if name in task.phases(step)]
        if None not in sent:
            log["sync_bytes"] = torch.tensor(sent, dtype=torch.float64).sum()
        return log

    def _turn(
        self, task: Task, phase: str, batches: list[Batch], colors: Tensor | None, step: int
    ) -> dict[str, Tensor]:
        learner = self._learners[phase]
        learner.begin_turn(step)
        images = sum(len(batch) for batch in batches)
        log: dict[str, Tensor] = {}
        calls = self._wake((phase,))
        for batch in batches:
            weight = len(batch) / images
            with learner.averaging(last=batch is batches[-1]):
                color = task.generate(calls, batch) if colors is None else colors
                loss = task.loss(phase, calls, batch, color, step)
                learner.backward(loss.total * weight)
            for name, part in loss.parts.items():
                log[name] = log.get(name, torch.zeros_like(part)) + part.detach() * weight
        log |= learner.update()
        skipped = log["skipped"]
        self._skipped_in_a_row[phase] = (self._skipped_in_a_row[phase] + 1) * skipped
        learner.follow(images=(step + 1) * images * self.world_size, batch=images * self.world_size)
        # What was skipped is counted, but is no part of any mean.
        return {f"{phase}/{name}": value.where(skipped == 0, 0) for name, value in log.items()} | {
            f"{phase}/skipped": skipped
        }

    def _wake(self, names: tuple[str, ...]) -> Calls:
        """Let only these networks learn. Returns all networks as they may be called now."""
        for name, learner in self._learners.items():
            learner.network.module.requires_grad_(name in names)
        return {name: learner.awake if name in names else learner.asleep for name, learner in self._learners.items()}

    def skipped_in_a_row(self) -> dict[str, int]:
        """How many updates each network has just skipped, one after the other. Waits for the device."""
        return {name: int(count) for name, count in self._skipped_in_a_row.items()}

    def sum(self, values: Tensor) -> Tensor:
        """Add a tensor up over all processes; every process gets the result, on the CPU."""
        if self.world_size == 1:
            return values.cpu()
        total: Tensor = self.accelerator.reduce(values.to(self.device), reduction="sum")
        return total.cpu()

    def wait(self) -> None:
        """Wait until every process is here."""
        self.accelerator.wait_for_everyone()

    def from_main(self, value: Any) -> Any:  # noqa: ANN401  whatever can be pickled
        """The first process's value, on every process."""
        values = [value]
        broadcast_object_list(values)
        return values[0]

    def together(self, work: Callable[[], object], *, here: bool = True) -> None:
        """Do some work on the processes that say ``here``, while the others wait.

        If one of them fails, all do, so that nobody waits for a process that has given up. A UserError is raised by
        all, anything else by the one that it happened to, and as a RunError by the others.
        """
        failure: Exception | None = None
        if here:
            try:
                work()
            except Exception as error:
                failure = error
        mistake = str(failure) if isinstance(failure, UserError) else None
        failures = [each for each in gather_object([(failure is not None, mistake, repr(failure))]) if each[0]]
        for _, each, _ in failures:
            if each is not None:
                raise UserError(each)
        if failure is not None:
            raise failure
        if failures:
            raise RunError(f"another process failed: {' '.join(failures[0][2].split())}")

    @property
    def is_first_on_machine(self) -> bool:
        """Whether this process is the one of its machine that does what is done once a machine."""
        return bool(self.accelerator.is_local_main_process)

    def state_dict(self) -> dict[str, Any]:
        """Everything that training changes in the networks: the same on every process."""
        return {
            name: learner.state_dict() | {"skipped_in_a_row": self._skipped_in_a_row[name]}
            for name, learner in self._learners.items()
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict()``. Raises what torch raises when it doesn't fit."""
        for name, learner in self._learners.items():
            learner.load_state_dict(state[name])
            self._skipped_in_a_row[name] = state[name]["skipped_in_a_row"].to(self.device)

    def close(self) -> None:
        """Leave the process group."""
        self.accelerator.end_training()
