"""The engine: the one place that knows Accelerate. It runs a step's phases on any number of processes.

In each phase one network learns. It is called through its wrapper, so its gradients are averaged over all processes,
once, while backward still runs. The others are frozen and called unwrapped: nothing of theirs is computed that nobody
uses, and nothing of theirs travels.
"""

import functools
import os
import re
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor

from colordist.config import Compiled, RunError, UserError
from colordist.data.loader import Batch
from colordist.data.sampler import share
from colordist.engine.batch_norm import RunningStatistics, use_global_statistics
from colordist.engine.ddp import DDPStrategy
from colordist.engine.environment import (
    check_clipping,
    check_compilation,
    check_launch,
    deepspeed_settled,
    device_type,
    keep_freed_memory,
    peak_memory,
    resolve_precision,
    set_numerics,
    share_cores,
    zero_stage,
)
from colordist.engine.failure_detector import ALL_STOP, Timeouts
from colordist.engine.launch import Launch
from colordist.engine.monitor import Monitor
from colordist.engine.network import Network
from colordist.engine.rendezvous import METHOD
from colordist.engine.strategy import Strategy
from colordist.tasks.base import Calls, Generated, Task

_MEETING = timedelta(minutes=10)  # to start all processes
_TIMEOUT = timedelta(days=1)  # the last resort: the watch ends what hangs, and knows what may take long
_P = ParamSpec("_P")
_R = TypeVar("_R")


def _by_all(method: Callable[Concatenate["Engine", _P], _R]) -> Callable[Concatenate["Engine", _P], _R]:
    """What all processes do together. Where another one is missing, the watch finds out which, and ends this one."""

    @functools.wraps(method)
    def watched(self: "Engine", /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        self.monitor.enter()
        try:
            result = method(self, *args, **kwargs)
        except RuntimeError as error:
            if self.world_size == 1 or not _is_broken_connection(error):
                raise
            self.monitor.lost(str(error))
            raise RunError(f"another process is gone ({str(error).splitlines()[0]}): {ALL_STOP}") from None
        self.monitor.progress()
        return result

    return watched


def _is_broken_connection(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or bool(re.search("gloo|nccl|Connection (closed|reset)", str(error)))


@contextmanager
def _meeting(processes: int) -> Iterator[None]:
    """Where processes first meet. Raises RunError if they don't."""
    try:
        yield
    except dist.DistError as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        reason = str(error).splitlines()[0].rstrip(".")
        raise RunError(
            f"the {processes} processes did not meet at {where} ({reason}): start all of them within "
            f"{_MEETING.total_seconds() / 60:.0f} minutes, where they reach that address and no other program uses it"
        ) from None


class Engine:
    """Runs a task's phases on whatever there is: one CPU or GPU, or many processes that work as one."""

    def __init__(
        self,
        precision: str,
        *,
        deterministic: bool = False,
        tf32: bool = False,
        compiled: Compiled = "off",
        timeouts: Timeouts | None = None,
    ) -> None:
        """compiled: what ``train.compile`` says; limits: how long processes wait for one another."""
        launch = Launch.read()
        kind = device_type()
        self.precision = resolve_precision(precision, kind)
        check_launch(kind, self.precision)
        check_compilation(compiled, kind)
        share_cores()
        if kind == "cpu":
            keep_freed_memory()
        set_numerics(deterministic=deterministic, tf32=tf32)
        with deepspeed_settled(kind), _meeting(launch.world_size):
            self.accelerator = Accelerator(
                cpu=kind == "cpu",
                mixed_precision=self.precision if self.precision in ("bf16", "fp16") else "no",
                kwargs_handlers=[
                    # Buffers are the same on all processes, so there are none to broadcast.
                    DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True),
                    InitProcessGroupKwargs(timeout=_MEETING, init_method=METHOD),
                ],
            )
        self.device: torch.device = self.accelerator.device
        self.rank: int = self.accelerator.process_index
        self.world_size: int = self.accelerator.num_processes
        self.is_main = self.rank == 0
        self.compiled = compiled
        if compiled != "off":
            torch._dynamo.config.recompile_limit = 64  # per class, and cyclegan has two networks of each, awake or not
        self.dtype = torch.float64 if self.precision == "fp64" else torch.float32
        self._strategies: dict[str, Strategy] = {}
        self._statistics: dict[str, RunningStatistics] = {}
        self._skipped_in_a_row: dict[str, Tensor] = {}
        if self.world_size != launch.world_size:
            raise UserError(
                f"the launcher told of {launch.world_size} processes, but Accelerate sees {self.world_size}: "
                "start with accelerate launch or torchrun"
            )
        self.monitor = Monitor()
        if self.world_size > 1:
            self._start_monitor(timeouts)

    def _start_monitor(self, timeouts: Timeouts | None) -> None:
        store = dist.distributed_c10d._get_default_store().clone()
        launchers = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        monitor = Monitor(store, self.rank, self.world_size, socket.gethostname(), timeouts, launchers_store=launchers)
        self.wait()
        set_timeout = getattr(dist, "set_timeout", None) or dist.distributed_c10d._set_pg_timeout  # before torch 2.15
        set_timeout(_TIMEOUT, dist.group.WORLD)
        monitor.start()
        self.monitor = monitor

    @_by_all
    def prepare(self, task: Task) -> None:
        """Move the networks to the device and wrap them, each on its own."""
        for name, network in task.networks.items():
            for module in [network.module] + ([network.ema.module] if network.ema else []):
                module.to(device=self.device, dtype=self.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
            if self.world_size > 1:
                network.module = use_global_statistics(network.module, self.device)
            if self.compiled != "off":
                # In place, and what DDP wraps: then it is still DDP that is called, and the keys stay as they are.
                mode = "reduce-overhead" if self.compiled == "graphs" else None
                network.module.compile(mode=mode, dynamic=False)  # few sizes of batches, each compiled by itself
            self._strategies[name] = self._strategy(name, network)
            self._statistics[name] = RunningStatistics(network.module)
            self._skipped_in_a_row[name] = torch.zeros((), device=self.device)
        task.state = {name: rows.to(self.device, self.dtype) for name, rows in task.state.items()}

    def _strategy(self, name: str, network: Network) -> Strategy:
        """One of the engine that the launcher asks for."""
        if (stage := zero_stage()) is None:
            return DDPStrategy(network, self.accelerator)
        from colordist.engine.deepspeed import DeepSpeedStrategy

        check_clipping(f"optimizer.{name}.clip_norm", network.config.clip_norm)
        if network.has_parts:
            keys = "train.freeze and optimizer.generator.lr_scales"
            raise UserError(f"{keys} don't work with DeepSpeed: launch with launch/multi_gpu.yaml")
        return DeepSpeedStrategy(network, self.accelerator, stage)

    @_by_all
    def rehearse(self, task: Task, batch: Batch, step: int) -> None:
        """One backward pass of each network that changes nothing, before the step that a run begins or continues with.

        In its first pass DDP learns the order in which gradients come, and cuts them into other buckets from the second
        on. Sums over more than two processes depend on that in their last bit, and a continued run is to have the same.
        """
        if self.world_size < 3:
            return
        for name, strategy in self._strategies.items():
            if isinstance(strategy, DDPStrategy):
                calls = self._set_trainable((name,))
                self._statistics[name].remember()
                task.loss(name, calls, batch, task.generate(calls, batch), step).total.backward()
                self._statistics[name].restore_where(torch.ones((), device=self.device))
                strategy.network.optimizer.zero_grad(set_to_none=True)

    @_by_all
    def step(self, task: Task, batches: list[Batch], step: int) -> dict[str, Tensor]:
        """Run all phases of a step. Returns what to log, by "kind/network/quantity": scalars, still on the device.

        batches: this process's micro-batches. A phase finishes all of them, and steps, before the next phase begins.
        With a single one, the generators run once, for all phases; with several, keeping all their graphs would undo
        what micro-batches are for, so they run again in each phase.
        """
        self.monitor.at_step(step + 1)
        if self.compiled == "graphs":
            torch.compiler.cudagraph_mark_step_begin()  # what the graphs left in memory may be overwritten from here on
        generated, phases = None, task.phases(step)
        for statistics in self._statistics.values():
            statistics.remember()
        if len(batches) == 1:
            trainable = self._set_trainable(tuple(name for name in task.generators if name in phases))
            generated = task.generate(trainable, batches[0])
        log: dict[str, Tensor] = {}
        for phase in phases:
            log |= self._run_phase(task, phase, batches, generated, step)
        sent = [strategy.bytes_sent for name, strategy in self._strategies.items() if name in phases]
        if None not in sent:
            log["pace/sync_bytes"] = torch.tensor(sent, dtype=torch.float64).sum()
        return log

    def _run_phase(
        self, task: Task, phase: str, batches: list[Batch], generated: Generated | None, step: int
    ) -> dict[str, Tensor]:
        strategy = self._strategies[phase]
        strategy.begin_phase(step)
        images = sum(len(batch) for batch in batches)
        log: dict[str, Tensor] = {}
        calls = self._set_trainable((phase,))
        states: list[dict[str, Tensor]] = []
        for batch in batches:
            weight = len(batch) / images
            with strategy.gradient_sync(last=batch is batches[-1]):
                answer = task.generate(calls, batch) if generated is None else generated
                loss = task.loss(phase, calls, batch, answer, step)
                strategy.backward(loss.total * weight)
            self.monitor.progress()
            states.append(loss.state)
            named = {f"loss/{phase}/{name}": part for name, part in loss.parts.items()}
            for key, value in (named | _diagnostics(phase, loss.diagnostics)).items():
                weighted = value.detach() * weight
                log[key] = log[key] + weighted if key in log else weighted
        found = strategy.update()
        skipped = found.pop("skipped")
        log |= _diagnostics(phase, found)
        self._statistics[phase].restore_where(skipped)
        for batch, state in zip(batches, states, strict=True):
            for name, rows in state.items():
                task.state[name][batch.batch_index] = rows.where(skipped == 0, task.state[name][batch.batch_index])
        self._skipped_in_a_row[phase] = (self._skipped_in_a_row[phase] + 1) * skipped
        strategy.update_ema(images=(step + 1) * images * self.world_size, batch=images * self.world_size)
        # What was skipped is counted, but is no part of any mean. All in one go: a GPU is told few things, not many.
        kept = torch.stack(list(log.values())).where(skipped == 0, 0).unbind()
        return dict(zip(log, kept, strict=True)) | _diagnostics(phase, {"skipped": skipped})

    def _set_trainable(self, names: tuple[str, ...]) -> Calls:
        """Let only these networks learn. Returns all networks as they may be called now."""
        for name, strategy in self._strategies.items():
            strategy.network.set_trainable(name in names)
            self._statistics[name].update_ema(name in names)
        return {
            name: strategy.trainable if name in names else strategy.frozen
            for name, strategy in self._strategies.items()
        }

    def skipped_in_a_row(self) -> dict[str, int]:
        """How many updates each network has just skipped, one after the other. Waits for the device."""
        return {name: int(count) for name, count in self._skipped_in_a_row.items()}

    def stops_after(self, step: int, reason: str | None) -> str | None:
        """Whether all processes stop after a step: why, or None. reason: why this one was asked to, if it was.

        All ask after every step but the last. They agree beside the training: nobody waits for another's device.
        """
        if reason is not None:
            self.monitor.request_stop(reason)
        return self.monitor.stops_after(step)

    def stall_exempt(self, work: str) -> AbstractContextManager[None]:
        """What this process does in here may take any time: the others wait."""
        return self.monitor.stall_exempt(work)

    def progress(self) -> None:
        """Show that this process gets on, in what takes long."""
        self.monitor.progress()

    @_by_all
    def sum(self, values: Tensor) -> Tensor:
        """Add a tensor up over all processes; every process gets the result, on the CPU."""
        if self.world_size == 1:
            return values.cpu()
        total: Tensor = self.accelerator.reduce(values.to(self.device), reduction="sum")
        return total.cpu()

    def whole(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """A task's ``state`` with the rows of all processes, on every process."""
        whole: dict[str, Tensor] = {}
        for name, rows in state.items():
            mine, own = torch.zeros_like(rows), share(len(rows), self.rank, self.world_size)
            mine[own] = rows[own]
            whole[name] = self.sum(mine)
        return whole

    @_by_all
    def wait(self) -> None:
        """Wait until every process is here."""
        self.accelerator.wait_for_everyone()

    @_by_all
    def gather(self, value: Any) -> list[Any]:  # noqa: ANN401  whatever can be pickled
        """Every process's value, on every process."""
        return list(gather_object([value]))

    @_by_all
    def from_main(self, value: Any) -> Any:  # noqa: ANN401  whatever can be pickled
        """The first process's value, on every process."""
        values = [value]
        broadcast_object_list(values)
        return values[0]

    def run_on_all_ranks(self, work: Callable[[], object], *, here: bool = True) -> None:
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
        failures = [each for each in self.gather((failure is not None, mistake, repr(failure))) if each[0]]
        for _, each, _ in failures:
            if each is not None:
                raise UserError(each)
        if failure is not None:
            raise failure
        if failures:
            raise RunError(f"another process failed: {' '.join(failures[0][2].split())}")

    @property
    def name(self) -> str:
        """Which engine this is: `ddp`, or DeepSpeed with its stage."""
        return "ddp" if (stage := zero_stage()) is None else f"deepspeed zero {stage}"

    @property
    def backend(self) -> str:
        """What carries messages between processes."""
        return str(dist.get_backend()) if dist.is_initialized() else "none"

    def peak_memory(self) -> float:
        """The most memory that this process has had at once so far, in MB."""
        return peak_memory(self.device)

    @property
    def is_first_on_machine(self) -> bool:
        """Whether this process is the one of its machine that does what is done once a machine."""
        return bool(self.accelerator.is_local_main_process)

    def replicas(self) -> dict[str, dict[str, Iterable[Tensor]]]:
        """What must be the same on all processes, by network and part."""
        return {name: strategy.replicated() for name, strategy in self._strategies.items()}

    @_by_all
    def state_dict(self) -> dict[str, Any]:
        """Everything that training changes in the networks: the same on every process."""
        return {
            name: strategy.state_dict() | {"skipped_in_a_row": self._skipped_in_a_row[name]}
            for name, strategy in self._strategies.items()
        }

    @_by_all
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict()``. Raises what torch raises when it doesn't fit."""
        for name, strategy in self._strategies.items():
            strategy.load_state_dict(state[name])
            self._skipped_in_a_row[name] = state[name]["skipped_in_a_row"].to(self.device)

    def close(self) -> None:
        """Leave the process group, all processes together."""
        self.wait()
        self.monitor.close()
        self.accelerator.end_training()


def _diagnostics(phase: str, values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Keys of the log for what is no loss."""
    return {f"diagnostics/{phase}/{name}": value for name, value in values.items()}
