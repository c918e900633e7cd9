"""The engine: runs the phases of a step on any number of processes, and the collectives around them.

In each phase one network is trainable. It is called through its wrapper, so its gradients are all-reduced, once, while
backward still runs. The others are frozen and called without their wrappers: none of their gradients is computed or
all-reduced.
"""

import functools
import re
import socket
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from colordist.config import Compiled
from colordist.data.batch import Batch
from colordist.engine import nccl
from colordist.engine.environment import (
    check_compilation,
    check_launch,
    device_type,
    keep_freed_memory,
    own_cores,
    peak_memory,
    resolve_precision,
    set_numerics,
    share_cores,
    use_own_gpu,
    without_deepspeed_plugin,
    zero_stage,
)
from colordist.engine.failure_detector import ALL_STOP, GRACE, Timeouts
from colordist.engine.launch import Launch
from colordist.engine.memory_format import fastest_format
from colordist.engine.monitor import Monitor
from colordist.engine.network import Network
from colordist.engine.phase_log import PhaseLog, weighted
from colordist.engine.rendezvous import join, launchers_store, lift_timeout
from colordist.engine.select import select_strategy
from colordist.engine.strategy import Strategy
from colordist.errors import RunError, UserError
from colordist.processes import Process
from colordist.tasks.base import Calls, Generated, Task

_P = ParamSpec("_P")
_R = TypeVar("_R")


def _collective(method: Callable[Concatenate["Engine", _P], _R]) -> Callable[Concatenate["Engine", _P], _R]:
    """A method that all ranks call together. If one of them has died, the monitor names it and ends this process."""

    @functools.wraps(method)
    def watched(self: "Engine", /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        self.monitor.enter_collective()
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
    return isinstance(error, dist.DistError) or bool(re.search("gloo|nccl|Connection (closed|reset)", str(error), re.I))


class Engine:
    """Runs a task's phases on one CPU or GPU, or on many processes with the same result."""

    def __init__(
        self,
        precision: str,
        *,
        deterministic: bool = False,
        tf32: bool = False,
        compiled: Compiled = "off",
        timeouts: Timeouts | None = None,
    ) -> None:
        """compiled: ``train.compile``; timeouts: of the failure detector; None: a single process isn't monitored."""
        launch = Launch.read()
        kind = device_type()
        self.precision = resolve_precision(precision, kind)
        check_launch(kind, self.precision)
        check_compilation(compiled, kind)
        if kind == "cpu":
            keep_freed_memory()
        set_numerics(deterministic=deterministic, tf32=tf32, compiled=compiled != "off")
        self._local_rank = launch.local_rank
        use_own_gpu(kind)
        nccl.disable_error_handling()
        with without_deepspeed_plugin(kind):
            self.accelerator = join(kind, self.precision, launch.world_size)
        self.device: torch.device = self.accelerator.device
        self.rank: int = self.accelerator.process_index
        self.world_size: int = self.accelerator.num_processes
        self.is_main = self.rank == 0
        self.compiled = compiled
        if compiled != "off":
            # Per class, and cyclegan has two networks of each, trainable or frozen.
            torch._dynamo.config.recompile_limit = 64
        self.tensor_cores = tf32 or self.precision in ("bf16", "fp16")
        self.dtype = torch.float64 if self.precision == "fp64" else torch.float32
        self.strategies: dict[str, Strategy] = {}
        self.frozen: dict[str, Callable[..., Tensor]] = {}
        if self.world_size != launch.world_size:
            raise UserError(
                f"the launcher announces {launch.world_size} processes, but Accelerate sees {self.world_size}: "
                "start with accelerate launch or torchrun"
            )
        self.monitor = Monitor()
        if self.world_size > 1:
            self._start_monitor(timeouts)
        elif timeouts is not None:
            self.monitor = Monitor(dist.HashStore(), timeouts=timeouts)  # type: ignore[attr-defined]
            self.monitor.start()
        host, cores = socket.gethostname(), own_cores()
        share_cores(kind, cores, [theirs for where, theirs in self.gather((host, cores)) if where == host])

    def _start_monitor(self, timeouts: Timeouts | None) -> None:
        monitor = Monitor(
            dist.distributed_c10d._get_default_store().clone(),
            self.rank,
            self.world_size,
            Process.current(),
            timeouts,
            launchers_store=launchers_store(),
            connection_error=functools.partial(nccl.group_error, self.device) if self.backend == "nccl" else str,
        )
        try:
            monitor.start()
        except dist.DistError as error:
            reason = str(error).splitlines()[0]
            raise RunError(f"not all of the {self.world_size} processes started ({reason}): see their logs") from None
        self.monitor = monitor
        self._connect()
        lift_timeout()

    def _connect(self) -> None:
        """Run a first barrier, for which NCCL connects all ranks."""
        if self.backend != "nccl":
            self.wait()
            return
        try:
            self.accelerator.wait_for_everyone()
        except RuntimeError as error:
            self.monitor.lost(str(error), seconds=GRACE + 3 * self.monitor.timeouts.interval)  # unless one has died
            raise nccl.start_error(error, self.world_size) from None

    @_collective
    def prepare(self, task: Task, networks: Mapping[str, Network]) -> None:
        """Move a task and its networks to the device, and give each network its strategy."""
        for name, network in networks.items():
            self._move(network.module, *([network.ema.module] if network.ema else []))
            if self.compiled != "off":
                # In place, so that DDP wraps the compiled module and the names of parameters stay.
                mode = "reduce-overhead" if self.compiled == "graphs" else None
                network.module.compile(mode=mode, dynamic=False)  # few batch sizes, each compiled separately
            self.strategies[name] = select_strategy(name, network, self.accelerator)
        for name, module in task.frozen.items():
            self._move(module)
            # Autocast, without DDP; placement as in DDPStrategy.
            self.frozen[name] = self.accelerator.prepare_model(module, device_placement=False, evaluation_mode=True)
        task.state = {name: rows.to(self.device, self.dtype) for name, rows in task.state.items()}

    def _move(self, *modules: nn.Module) -> None:
        for module in modules:
            memory_format = fastest_format(module, self.device.type, tensor_cores=self.tensor_cores)
            module.to(device=self.device, dtype=self.dtype, memory_format=memory_format)  # type: ignore[call-overload]

    @_collective
    def rehearse(self, task: Task, batch: Batch, step: int) -> None:
        """Run one backward pass of each network without an update, before the first step of a new or resumed run.

        DDP rebuilds its buckets by the order of gradients in its first backward pass. The last bit of a sum over more
        than two processes depends on the buckets, and a resumed run must not differ.
        """
        if self.world_size < 3:
            return
        for name, strategy in self.strategies.items():
            if strategy.cuts_buckets_on_first_backward:
                calls = self._set_trainable((name,))
                task.loss(name, calls, batch, task.generate(calls, batch), step).total.backward()
                strategy.network.optimizer.zero_grad(set_to_none=True)

    @_collective
    def step(self, task: Task, batches: list[Batch], step: int) -> dict[str, Tensor]:
        """Run all phases of a step. Returns scalars to log, still on the device, by "kind/network/quantity".

        batches: this process's micro-batches. A phase finishes all of them, and updates, before the next phase begins.
        The generators run once, before the phases; with gradient accumulation they run again in each phase, as keeping
        the graphs of all micro-batches would take the memory that accumulation saves.
        """
        self.monitor.at_step(step + 1)
        if self.compiled == "graphs":
            torch.compiler.cudagraph_mark_step_begin()  # outputs of the last step may be overwritten from here on
        phases, generated = task.phases(step), None
        if len(batches) == 1:
            calls = self._set_trainable([name for name in task.generators if name in phases])
            generated = task.generate(calls, batches[0])
        log: dict[str, Tensor] = {}
        for phase in phases:
            log |= self._run_phase(task, phase, batches, generated, step)
        sent = [strategy.bytes_sent for name, strategy in self.strategies.items() if name in phases]
        if None not in sent:
            log["pace/sync_bytes"] = torch.tensor(sent, dtype=torch.float64).sum()
        return log

    def _run_phase(
        self, task: Task, phase: str, batches: list[Batch], generated: Generated | None, step: int
    ) -> dict[str, Tensor]:
        """Train one network on all micro-batches. generated: None to run the generators on each micro-batch."""
        strategy, images = self.strategies[phase], sum(len(batch) for batch in batches)
        strategy.begin_phase(step)
        calls = self._set_trainable([phase])
        log, states = PhaseLog(phase), []
        for batch in batches:
            weight = len(batch) / images
            with strategy.gradient_sync(last=batch is batches[-1]):
                colors = task.generate(calls, batch) if generated is None else generated
                loss = task.loss(phase, calls, batch, colors, step)
                strategy.backward(weighted(loss.total, weight))
            self.monitor.progress()
            states.append(loss.state)
            log.add(loss, weight)
        found = strategy.update()
        for batch, state in zip(batches, states, strict=True):
            for name, rows in state.items():
                old = task.state[name][batch.share_index]
                task.state[name][batch.share_index] = rows.where(found["skipped"] == 0, old)
        strategy.update_ema(images=(step + 1) * images * self.world_size, batch=images * self.world_size)
        return log.finish(found)

    def _set_trainable(self, names: Collection[str]) -> Calls:
        """Make these networks trainable and freeze all others. Returns how to call each: trainable ones wrapped."""
        for name, strategy in self.strategies.items():
            strategy.network.set_trainable(name in names)
        networks = {
            name: strategy.trainable if name in names else strategy.frozen for name, strategy in self.strategies.items()
        }
        return networks | self.frozen

    def skipped_in_a_row(self) -> dict[str, int]:
        """Number of consecutive skipped updates up to now, by network. Waits for the device."""
        return {name: int(strategy.skipped_in_a_row) for name, strategy in self.strategies.items()}

    def stops_after(self, step: int, reason: str | None) -> str | None:
        """Why all processes stop after a step, or None. reason: of a stop requested on this process, if any.

        All ranks call it after every step but the last. They agree through the store, without a collective.
        """
        if reason is not None:
            self.monitor.request_stop(reason)
        return self.monitor.stops_after(step)

    def stall_exempt(self, work: str) -> AbstractContextManager[None]:
        """Context exempt from the stall timeout."""
        return self.monitor.stall_exempt(work)

    def progress(self) -> None:
        """Report progress to the failure detector, during long work."""
        self.monitor.progress()

    @_collective
    def sum(self, values: Tensor) -> Tensor:
        """All-reduce a tensor (sum). Returns it on the CPU."""
        if self.world_size == 1:
            return values.cpu()
        total: Tensor = self.accelerator.reduce(values.to(self.device), reduction="sum")
        return total.cpu()

    @_collective
    def gather_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Gather the rows of a task's ``state`` on rank 0, on the CPU. Returns an empty dict elsewhere."""
        if self.world_size == 1:
            return {name: rows.cpu() for name, rows in state.items()}
        gathered: dict[str, Tensor] = {}
        for name, rows in state.items():
            parts = [torch.empty_like(rows) for _ in range(self.world_size)] if self.is_main else None
            dist.gather(rows, parts)
            if parts is not None:
                gathered[name] = torch.cat([part.cpu() for part in parts])
        return gathered

    @_collective
    def wait(self) -> None:
        """Wait for all ranks (a barrier)."""
        self.accelerator.wait_for_everyone()

    @_collective
    def gather(self, value: Any) -> list[Any]:  # noqa: ANN401  whatever can be pickled
        """All-gather: the values of all ranks, on every rank."""
        from accelerate.utils import gather_object

        return list(gather_object([value]))

    @_collective
    def from_main(self, value: Any) -> Any:  # noqa: ANN401  whatever can be pickled
        """Broadcast: the value of rank 0, on every rank."""
        from accelerate.utils import broadcast_object_list

        values = [value]
        broadcast_object_list(values)
        return values[0]

    def on_all_ranks(self, work: Callable[[], _R]) -> _R:
        """Run work on all ranks. Returns this rank's result. If one rank fails, all raise, as in ``on_ranks``."""
        return cast(_R, self.on_ranks(work, here=True))

    def on_ranks(self, work: Callable[[], _R], *, here: bool) -> _R | None:
        """Run work on the ranks with ``here``, while the others wait. All ranks must call it.

        Returns this rank's result, None without ``here``. If one rank fails, all raise, so that none waits for it: a
        UserError is raised on all ranks, any other error where it happened and as a RunError elsewhere.
        """
        result: _R | None = None
        failure: Exception | None = None
        if here:
            try:
                result = work()
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
        return result

    def fetch(self, work: Callable[[], _R], label: str) -> _R:
        """Run work that leaves files on disk for others to find, e.g. a download, exempt from the stall timeout.

        Rank 0 goes first, then local rank 0 of the other machines, then all other ranks. Returns this rank's result.
        """

        def exempt() -> _R:
            with self.stall_exempt(label):
                return work()

        first = self.is_main, self.is_first_on_machine and not self.is_main
        order = [*first, not any(first)]
        results = [self.on_ranks(exempt, here=here) for here in order]
        return cast(_R, results[order.index(True)])

    @property
    def name(self) -> str:
        """Name of the strategy: `ddp`, or DeepSpeed with its ZeRO stage."""
        return "ddp" if (stage := zero_stage()) is None else f"deepspeed zero {stage}"

    @property
    def backend(self) -> str:
        """Backend of the process group: `gloo`, `nccl` or `none`."""
        return str(dist.get_backend()) if dist.is_initialized() else "none"

    def peak_memory(self) -> float:
        """Peak memory of this process so far, in MB."""
        return peak_memory(self.device)

    @property
    def is_first_on_machine(self) -> bool:
        """Whether this is local rank 0, for work done once per machine."""
        return self._local_rank == 0

    @property
    def networks(self) -> dict[str, Network]:
        """The prepared networks, by name."""
        return {name: strategy.network for name, strategy in self.strategies.items()}

    def replicas(self) -> dict[str, dict[str, Iterable[Tensor]]]:
        """Replicated tensors, by network and part."""
        return {name: strategy.replicated() for name, strategy in self.strategies.items()}

    @_collective
    def state_dict(self) -> dict[str, Any]:
        """The training state of all networks: the same on every process."""
        return {name: strategy.state_dict() for name, strategy in self.strategies.items()}

    @_collective
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict()``. Raises what torch raises when it doesn't fit."""
        for name, strategy in self.strategies.items():
            strategy.load_state_dict(state[name])

    def close(self) -> None:
        """Wait for all ranks, then leave the process group."""
        self.wait()
        self.monitor.close()
        self.accelerator.end_training()
