"""The engine: the one place that knows Accelerate. It runs a step's phases on any number of processes.

In each phase one network learns. It is called through its DistributedDataParallel wrapper, so its gradients are
averaged over all processes, once, while backward still runs. The others are frozen and called unwrapped: nothing of
theirs is computed that nobody uses, and nothing of theirs travels.
"""

import os
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor, nn

from colordist.config import RunError, UserError
from colordist.data.loader import Batch
from colordist.engine.environment import device_type, refuse_unfit_launch, resolve_precision, share_cores
from colordist.network import Network
from colordist.tasks.task import Calls, Task

_PATIENCE = timedelta(hours=1)  # others wait that long while one process of a machine fetches or decodes images


class Engine:
    """Runs a task's phases on whatever there is: one CPU or GPU, or many processes that work as one."""

    def __init__(self, precision: str, *, deterministic: bool) -> None:
        kind = device_type()
        self.precision = resolve_precision(precision, kind)
        refuse_unfit_launch(kind, self.precision)
        share_cores()
        if deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with this
            torch.use_deterministic_algorithms(True)
        self.accelerator = Accelerator(
            cpu=kind == "cpu",
            mixed_precision=self.precision if self.precision in ("bf16", "fp16") else "no",
            kwargs_handlers=[
                # On several processes no network has buffers that depend on data, so there are none to broadcast.
                DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True),
                InitProcessGroupKwargs(timeout=_PATIENCE),
            ],
        )
        self.device: torch.device = self.accelerator.device
        self.rank: int = self.accelerator.process_index
        self.world_size: int = self.accelerator.num_processes
        self.is_main = self.rank == 0
        self.dtype = torch.float64 if self.precision == "fp64" else torch.float32
        self._wrapped: dict[str, nn.Module] = {}
        self._bare: dict[str, nn.Module] = {}
        self._scalers: dict[str, torch.amp.GradScaler] = {}
        expected = int(os.environ.get("WORLD_SIZE", "1"))
        if self.world_size != expected:
            raise UserError(f"{expected} processes were started, but this one sees only {self.world_size}")

    def prepare(self, task: Task) -> None:
        """Move the networks to the device and wrap them, each on its own."""
        for name, network in task.networks.items():
            for module in [network.module] + ([network.ema.module] if network.ema else []):
                module.to(device=self.device, dtype=self.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
            self._bare[name] = network.module
            with warnings.catch_warnings():  # torch 2.15 renames broadcast_buffers, accelerate 1.15 can't yet
                warnings.simplefilter("ignore", FutureWarning)
                self._wrapped[name] = self.accelerator.prepare(network.module)
            # A scaler of its own: an overflow in one network says nothing about the other.
            self._scalers[name] = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")

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
        return log

    def _turn(
        self, task: Task, phase: str, batches: list[Batch], colors: Tensor | None, step: int
    ) -> dict[str, Tensor]:
        network = task.networks[phase]
        network.begin_turn(step)
        images = sum(len(batch) for batch in batches)
        log: dict[str, Tensor] = {}
        calls = self._wake((phase,))
        for batch in batches:
            weight = len(batch) / images
            with self._averaging(phase, last=batch is batches[-1]):
                color = task.generate(calls, batch) if colors is None else colors
                loss = task.loss(phase, calls, batch, color, step)
                self._scalers[phase].scale(loss.total * weight).backward()
            for name, part in loss.parts.items():
                log[name] = log.get(name, torch.zeros_like(part)) + part.detach() * weight
        log |= self._update(phase, network)
        if network.ema is not None:
            batch_size = images * self.world_size
            network.ema.update(network.module, images=(step + 1) * batch_size, batch=batch_size)
        return {f"{phase}/{name}": value for name, value in log.items()}

    def _wake(self, names: tuple[str, ...]) -> Calls:
        """Let only these networks learn. Returns all networks as they may be called now."""
        for name, module in self._bare.items():
            module.requires_grad_(name in names)
        return {name: (self._wrapped if name in names else self._bare)[name] for name in self._bare}

    def _averaging(self, phase: str, *, last: bool) -> AbstractContextManager[None]:
        """Gradients travel with the last micro-batch of a turn; those before are summed up at home."""
        return nullcontext() if last else self.accelerator.no_sync(self._wrapped[phase])

    def _update(self, phase: str, network: Network) -> dict[str, Tensor]:
        """Clip and step. Returns the gradient's norm before clipping; in fp16 also whether the step was skipped."""
        scaler, parameters = self._scalers[phase], list(network.module.parameters())
        scaler.unscale_(network.optimizer)
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if network.config.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, network.config.clip_norm, norm)
        scaler.step(network.optimizer)
        scaler.update()
        if not scaler.is_enabled():
            return {"gradient_norm": norm}
        # An overflow is how the scaler finds its scale: it skips that step, which is counted, not feared.
        finite = norm.isfinite()
        return {"gradient_norm": norm.where(finite, 0), "skipped": (~finite).float()}

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
        """The loss scalers' state; empty but for fp16."""
        return {name: scaler.state_dict() for name, scaler in self._scalers.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict()``."""
        for name, scaler in self._scalers.items():
            scaler.load_state_dict(state[name])

    def close(self) -> None:
        """Leave the process group."""
        self.accelerator.end_training()
