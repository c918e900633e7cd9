"""Running sums of what a step logs, reduced once per logging interval."""

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from colordist.engine.runtime import Engine
from colordist.run.records import PACE, SPEED


@dataclass
class Meter:
    """Values and times since the last log line. Sums stay on the device until then."""

    global_batch_size: int
    sums: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    steps: int = 0
    since: float = dataclasses.field(default_factory=time.perf_counter)
    waited: float = 0.0
    """Seconds that the host waited for batches."""

    def add(self, values: dict[str, Tensor]) -> None:
        """Add the values of a step, scalars by key."""
        self.steps += 1
        for key, value in values.items():
            self.sums[key] = self.sums[key].to(value) if key in self.sums else torch.zeros_like(value)
            self.counts[key] = self.counts.get(key, 0) + 1
        for device in {value.device for value in values.values()}:
            new = {key: value for key, value in values.items() if value.device == device}
            torch._foreach_add_([self.sums[key] for key in new], list(new.values()))  # few kernel launches

    def finish_interval(self, engine: Engine) -> tuple[dict[str, float], dict[str, float]]:
        """Compute means over steps and ranks, in one all-reduce, and the pace. Starts the next interval.

        Pace: ``images_per_second`` of all ranks, and ``waiting_for_data``, a fraction of this rank's time.
        """
        means = self._means({key: float(value) for key, value in self._reduced(engine).items()})
        seconds = time.perf_counter() - self.since
        pace = {
            SPEED: self.steps * self.global_batch_size / seconds,
            f"{PACE}waiting_for_data": self.waited / seconds,
        }
        self.sums, self.counts, self.steps = {}, {}, 0
        self.restart_clock()
        return means, pace

    def _means(self, sums: dict[str, float]) -> dict[str, float]:
        """Means over steps. Skipped updates are counted, and excluded from their network's means."""
        means: dict[str, float] = {}
        for key, total in sums.items():
            skipped = f"diagnostics/{key.split('/')[1]}/skipped"
            counted = self.counts[key] - sums.get(skipped, 0)
            if key == skipped:
                means[key] = total
            elif counted:
                means[key] = total / counted
        return means

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Context whose time doesn't count as training."""
        start = time.perf_counter()
        yield
        self.since += time.perf_counter() - start

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Context whose time counts as waiting for data."""
        start = time.perf_counter()
        yield
        self.waited += time.perf_counter() - start

    def restart_clock(self) -> None:
        """Start the interval's clock now."""
        self.since, self.waited = time.perf_counter(), 0.0

    def _reduced(self, engine: Engine) -> dict[str, Tensor]:
        """The mean over all processes of each sum."""
        if not self.sums:
            return {}
        total = engine.sum(self._to_cpu()) / engine.world_size
        return dict(zip(self.sums, total, strict=True))

    def _to_cpu(self) -> Tensor:
        """All sums, float64: one copy from each device, as not all devices have float64."""
        values = torch.empty(len(self.sums), dtype=torch.float64)
        for device in {value.device for value in self.sums.values()}:
            indices = [index for index, value in enumerate(self.sums.values()) if value.device == device]
            stacked = torch.stack([value for value in self.sums.values() if value.device == device])
            values[indices] = stacked.cpu().double()
        return values

    def state_dict(self, engine: Engine) -> dict[str, Any]:
        """The current interval: the sums of each rank, so that resuming is bit-exact. A collective."""
        if not self.sums:
            return {"sums": {}, "counts": {}}
        mine = self._to_cpu()
        every = torch.zeros(engine.world_size, len(mine), dtype=mine.dtype)
        every[engine.rank] = mine
        return {"sums": dict(zip(self.sums, engine.sum(every).unbind(1), strict=True)), "counts": dict(self.counts)}

    def load_state_dict(self, state: dict[str, Any], engine: Engine) -> None:
        """Continue an interval. With another number of ranks, each continues with the mean."""
        for key, sums in state["sums"].items():
            self.sums[key] = sums[engine.rank] if len(sums) == engine.world_size else sums.mean()
        self.counts = dict(state["counts"])
