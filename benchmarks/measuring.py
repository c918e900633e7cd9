"""What the benchmarks share: several processes of one script, hardware in words, median and spread."""

import os
import platform
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

PATIENCE = 1200.0  # seconds


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values)}


def told(values: dict[str, float], digits: int = 3, scale: float = 1.0) -> str:
    """A summary in words."""
    middle, low, high = (f"{scale * values[key]:.{digits}f}" for key in ("median", "min", "max"))
    return f"{middle} ({low} to {high}, n = {values['n']})"


def in_turns(
    arms: Mapping[str, Callable[[int], object]], settle: Callable[[], object], rounds: int, steps: int, first: int = 0
) -> dict[str, list[float]]:
    """Seconds a step of each arm, for each of some rounds. In a round each runs a block of steps; who begins changes.

    settle: waits until all that was begun is done, on all processes. The first block of each warms up.
    """
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(rounds + 1):
        for name in list(arms) if turn % 2 else reversed(list(arms)):
            settle()
            begin = time.perf_counter()
            for step in range(first + turn * steps, first + (turn + 1) * steps):
                arms[name](step)
            settle()
            if turn:
                seconds[name].append((time.perf_counter() - begin) / steps)
    return seconds


def beside(seconds: Mapping[str, list[float]], one: str, other: str) -> dict[str, object]:
    """How many times as long one arm takes as another, and how long each."""
    ratios = [a / b for a, b in zip(seconds[one], seconds[other], strict=True)]
    return {"ratio": summary(ratios), **{name: summary(values) for name, values in seconds.items()}}


def hardware() -> str:
    """The processor and how much of it may be used, the GPU if there is one, and the version of PyTorch."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{names[0] if names else platform.machine()}, {cores} cores{gpu}, torch {torch.__version__}"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def run_together(script: str, arguments: Sequence[str], processes: int) -> None:
    """Run a script in several processes that find one another as a launcher's would. Raises RuntimeError if one fails.

    The script must call ``end_with_parent``.
    """
    settings = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    settings |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), "TORCH_CPP_LOG_LEVEL": "ERROR"}
    if processes == 1:
        settings = dict(os.environ)
    settings.setdefault("GOMP_SPINCOUNT", "3000")  # as the trainer has it
    if not torch.cuda.is_available() or torch.cuda.device_count() < processes:
        settings["ACCELERATE_USE_CPU"] = "true"
    started: list[subprocess.Popen[bytes]] = []
    try:
        for rank in range(processes):
            own = settings | ({"RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {})
            line = [sys.executable, script, *arguments]
            started.append(subprocess.Popen(line, env=own, stdin=subprocess.PIPE, stdout=sys.stderr))
        wait(started)
    finally:
        for process in started:
            process.kill()
            process.wait()


def wait(started: list[subprocess.Popen[bytes]]) -> None:
    """Wait for all; but not for the others as soon as one has failed: they would wait for it. Raises RuntimeError."""
    deadline = time.monotonic() + PATIENCE
    while any(process.poll() is None for process in started) and not any(process.poll() for process in started):
        if time.monotonic() > deadline:
            raise RuntimeError(f"not through after {PATIENCE:.0f} seconds")
        time.sleep(0.1)
    if any(process.poll() for process in started):
        raise RuntimeError("one of the processes failed")


def end_with_parent() -> None:
    """End this process when whoever started it is gone."""

    def wait_for_the_end() -> None:
        while os.read(0, 1):  # not by sys.stdin: a DataLoader's forked workers would wait for its lock for ever
            pass
        os._exit(1)

    threading.Thread(target=wait_for_the_end, daemon=True).start()
