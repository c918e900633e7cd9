"""All-reduce bandwidth."""

import statistics
import time
from dataclasses import dataclass

import torch
import torch.distributed as dist

from colordist.engine.runtime import Engine

_MEGABYTES = 32
_REPEATS = 5


@dataclass(frozen=True)
class AllReduce:
    """Timing of all-reduces of one buffer."""

    processes: int
    megabytes: float
    seconds: float
    """Median."""

    @property
    def gigabytes_per_second(self) -> float:
        """Bandwidth per process. A ring all-reduce sends 2 (n - 1) / n buffers."""
        sent = 2 * (self.processes - 1) / self.processes * self.megabytes
        return sent / 1000 / self.seconds

    def __str__(self) -> str:
        speed = f"{self.gigabytes_per_second:.2f} GB/s a process"
        return f"{self.megabytes:.0f} MB in {1000 * self.seconds:.1f} ms, {speed} (median of {_REPEATS})"


def all_reduce(engine: Engine, megabytes: int = _MEGABYTES) -> AllReduce:
    """Time all-reduces of a float32 buffer. All ranks must call it."""
    buffer = torch.zeros(megabytes * 250_000, device=engine.device)
    seconds = []
    for _ in range(_REPEATS + 1):
        engine.wait()
        begin = time.perf_counter()
        dist.all_reduce(buffer)
        float(buffer[0])  # synchronises with a GPU
        seconds.append(time.perf_counter() - begin)
    return AllReduce(engine.world_size, megabytes, statistics.median(seconds[1:]))  # the first one opens connections
