"""What each process of gpu.py measures: no script of its own. Functions take a job and return what goes into JSON."""

import contextlib
import io
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from gpu_training import IMAGES, Job, kernels, read, speed, synchronize
from measuring import summary
from step import BareLoop, compare

from colordist.data.loader import ResidentLoader
from colordist.run.folder import RunFolder
from colordist.training.batch_arithmetic import batch_arithmetic
from colordist.training.build import build_trainer
from colordist.training.build_task import build_task
from colordist.training.memory import estimate

DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def hardware(job: Job) -> dict[str, Any]:
    """What this runs on."""
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": os.getloadavg()[0],
    }
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "gpu": properties.name,
            "memory_gb": properties.total_memory / 1e9,
            "multiprocessors": properties.multi_processor_count,
            "capability": f"{properties.major}.{properties.minor}",
        }
    if shutil.which("nvidia-smi"):
        asked = ("driver_version", "clocks.sm", "clocks.max.sm", "clocks.mem", "temperature.gpu", "power.draw")
        command = ["nvidia-smi", f"--query-gpu={','.join(asked)}", "--format=csv,noheader", "--id=0"]
        said = subprocess.run(command, capture_output=True, text=True, timeout=20)
        found["nvidia_smi"] = dict(zip(asked, map(str.strip, said.stdout.split(",")), strict=False))
    return found


# --- ceilings


def ceilings(job: Job) -> dict[str, Any]:
    """The most that matrix products and copies reach here, on random numbers. job: ``size``, ``bytes``, ``rounds``."""
    device, size = torch.device("cuda" if torch.cuda.is_available() else "cpu"), job["size"]
    found: dict[str, Any] = {"size": size, "tflops": {}}
    for name, dtype in DTYPES.items():
        torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
        one, other = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        answer = torch.empty(size, size, device=device, dtype=dtype)
        seconds = timed(lambda a=one, b=other, c=answer: torch.mm(a, b, out=c), device, job["rounds"])  # type: ignore[misc]
        found["tflops"][name] = summary([2 * size**3 / each / 1e12 for each in seconds])
    source = torch.randn(job["bytes"] // 4, device=device)
    target = torch.empty_like(source)
    seconds = timed(lambda: target.copy_(source), device, job["rounds"])
    found["copy_tb_per_second"] = summary([2 * job["bytes"] / each / 1e12 for each in seconds])  # read and written
    return found


def timed(work: Callable[[], object], device: torch.device, rounds: int, at_once: int = 5) -> list[float]:
    """Seconds that one call takes, in each of several rounds of a few calls."""
    for _ in range(3):
        work()
    seconds = []
    for _ in range(rounds):
        synchronize(device)
        start = time.perf_counter()
        for _ in range(at_once):
            work()
        synchronize(device)
        seconds.append((time.perf_counter() - start) / at_once)
    return seconds


# --- memory


def memory(job: Job) -> dict[str, Any]:
    """The memory that a step is expected to need, in MB, by number format and batch. job: as for ``speed``."""
    found: dict[str, dict[int, float]] = {}
    for precision in ("fp32", "bf16"):
        for batch in job["batches"]:
            settings = job.get("settings", {}) | {"train.global_batch_size": batch, "train.precision": precision}
            config = read(job["config"], settings)
            kind = "cuda" if torch.cuda.is_available() else "cpu"
            expected = estimate(build_task(config), config, batch_arithmetic(config.train, 1), kind)
            found.setdefault(precision, {})[batch] = expected.peak / 1e6
    return {"expected_mb": found}


# --- beside a bare loop


def bare(job: Job) -> dict[str, Any]:
    """The trainer and a bare loop in turns. job: ``config``, ``settings``, ``precision``, ``rounds``, ``steps``."""
    with tempfile.TemporaryDirectory(prefix="bare-") as folder, contextlib.redirect_stdout(io.StringIO()):
        settings = {"task.warmup_steps": 0, "train.precision": job["precision"], "data.source": "synthetic"}
        settings |= {"data.train_images": 4, "data.test_images": 4}  # painting takes time: the others are copies
        settings |= {"log.every": job["steps"], "evaluate.every": 10**9, "checkpoint.every": 10**9}
        trainer = build_trainer(
            read(job["config"], job.get("settings", {}) | settings), RunFolder(Path(folder) / "run")
        )
        assert isinstance(trainer.loader, ResidentLoader)
        images = trainer.loader.images.repeat(IMAGES // 4, 1, 1, 1)
        sampler = replace(trainer.loader.share.sampler, length=len(images))
        loader = ResidentLoader(images, replace(trainer.loader.share, sampler=sampler))
        loop = BareLoop(trainer.config, images, job["precision"])
        found = compare(replace(trainer, loader=loader), loop, job["rounds"], job["steps"])
        trainer.close()
    return {"batch": trainer.config.train.global_batch_size} | found


WORK: dict[str, Callable[[Job], dict[str, Any]]] = {
    "hardware": hardware,
    "ceilings": ceilings,
    "speed": speed,
    "memory": memory,
    "kernels": kernels,
    "bare": bare,
}
