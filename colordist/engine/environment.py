"""Device, threads and precision of this process, and checks of the launch.

What ``accelerate launch`` exports by default counts as unset: ``ACCELERATE_MIXED_PRECISION=no``, ``OMP_NUM_THREADS=1``.
"""

import ctypes
import logging
import os
import resource
import shutil
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Literal

import torch

from colordist.config import Compiled
from colordist.engine.variables import flag, integer, value
from colordist.errors import UserError

log = logging.getLogger(__name__)

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h

Precision = Literal["fp64", "fp32", "bf16", "fp16"]


def device_type() -> Literal["cuda", "mps", "cpu"]:
    """The best available type of device; the CPU if ``accelerate launch --cpu`` asks for it."""
    if flag("ACCELERATE_USE_CPU"):
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def resolve_precision(precision: str, device: str) -> Precision:
    """Resolve ``auto``. Raises UserError for a precision that the device doesn't have."""
    match precision:
        case "auto":
            return "bf16" if device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
        case "fp16" if device == "cpu":
            raise UserError("train.precision is fp16, but there is no GPU here: try train.precision bf16 or fp32")
        case "fp64" if device == "mps":
            raise UserError("train.precision is fp64, which MPS devices don't have: try train.precision fp32")
        case "fp64" | "fp32" | "bf16" | "fp16":
            return precision
    raise ValueError(precision)


def peak_memory(device: torch.device) -> float:
    """Peak memory of this process so far, in MB: of the GPU, where there is one."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    unit = 1 if sys.platform == "darwin" else 1024  # bytes per unit of ru_maxrss
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def own_cores() -> set[int]:
    """The CPU cores that this process may use."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def share_cores(device: str, own: set[int], machine: Collection[set[int]]) -> None:
    """Set the number of threads to this process's share of the cores; launchers set it to one.

    Logs a warning where a GPU's process has fewer than two, which the driver's, NCCL's and loading threads use, too.

    own: the cores that this process may use; machine: those of each process on this machine, this one among them. SLURM
    may have bound each process to cores of its own.
    """
    users = {core: sum(core in cores for cores in machine) for core in own}
    share = sum(Fraction(1, count) for count in users.values())
    torch.set_num_threads(max(1, int(share)))
    if device == "cuda" and share < 2:
        log.warning(
            "fewer than two CPU cores for each process of this machine (cores: %d, processes: %d), so GPUs may wait: "
            "in a SLURM job try --cpus-per-task %d",
            len(set().union(*machine)),
            len(machine),
            2 * max(users.values()),
        )


def keep_freed_memory() -> None:
    """Have glibc, where it is used, keep freed memory for later allocations.

    By default it returns buffers of 32 MB and more to the system at once, and smaller ones when many are free. The next
    step maps them again, and the kernel clears each page: a fifth of a step's time at 256x256.
    """
    for setting in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"):
        if setting in os.environ:  # the user's choice
            return
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(_M_MMAP_THRESHOLD, 2**30) or library.mallopt(_M_MMAP_THRESHOLD, 2**25)  # the most before 2.35
        library.mallopt(_M_TRIM_THRESHOLD, -1)  # never


def set_numerics(*, deterministic: bool, tf32: bool, compiled: bool = False) -> None:
    """Set determinism and TF32 explicitly, whatever the libraries' defaults. compiled: for the compiler, too."""
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with this
    if compiled:
        torch.use_deterministic_algorithms(deterministic)  # imports it, which takes longer than all else at the start
    else:
        torch.set_deterministic_debug_mode("error" if deterministic else "default")
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32


def check_launch(device: str, precision: str) -> None:
    """Raise UserError for a launch that would train several independent copies, or ignore what the launcher asks for.

    Each of these would otherwise exit 0 without a warning.
    """
    environment = os.environ
    for name, what in (("FSDP", "FSDP"), ("MEGATRON_LM", "Megatron-LM"), ("PARALLELISM_CONFIG", "parallelism")):
        if flag(f"ACCELERATE_USE_{name}"):
            raise UserError(
                f"the launcher asks for {what}, which colordist doesn't run: use launch/deepspeed_zero3.yaml"
            )
    if zero_stage() is not None:
        _check_deepspeed(device, precision)
    if (asked := value("ACCELERATE_MIXED_PRECISION") or "no") not in ("no", precision):
        raise UserError(
            f"the launcher asks for {asked}, but train.precision is {precision}: launch with --mixed_precision no, or "
            f"set train.precision {asked}"
        )
    if environment.get("ACCELERATE_DYNAMO_BACKEND", "no").lower() != "no":
        raise UserError("the launcher asks for a dynamo backend, which colordist doesn't use: --dynamo_backend no")
    # With several processes asked for, accelerate's simple launcher sets MASTER_ADDR but starts one process.
    if "MASTER_ADDR" in environment and "WORLD_SIZE" not in environment:
        raise UserError(
            "the launcher was asked for several processes but started only one: add --multi_gpu (on CPUs too), or use "
            "accelerate launch --config_file launch/cpu.yaml"
        )
    local = integer("LOCAL_WORLD_SIZE", 1)
    if device == "cuda" and local > torch.cuda.device_count() and not _sees_its_own_gpu():
        raise UserError(
            f"the launcher started {local} processes here, but there are {torch.cuda.device_count()} GPUs: "
            f"try --num_processes {torch.cuda.device_count()}"
        )
    if device == "mps" and local > 1:
        raise UserError(f"the launcher started {local} processes, but MPS has one device: try --num_processes 1")
    if integer("WORLD_SIZE", 1) > 1 and not environment.get("MASTER_ADDR"):
        raise UserError(
            f"WORLD_SIZE is {environment['WORLD_SIZE']}, but MASTER_ADDR is not set: set it to the host of process 0, "
            "or start with accelerate launch or torchrun"
        )


def _sees_its_own_gpu() -> bool:
    """Whether one GPU was made visible to this process, as by ``srun --gpus-per-task 1``."""
    return torch.cuda.device_count() == 1 and "CUDA_VISIBLE_DEVICES" in os.environ


def use_own_gpu(device: str) -> None:
    """Have Accelerate and DeepSpeed, which take LOCAL_RANK for a GPU's number, use the only GPU that is visible."""
    if device == "cuda" and torch.cuda.device_count() == 1 and "LOCAL_RANK" in os.environ:
        os.environ["LOCAL_RANK"] = "0"


def check_compilation(compiled: Compiled, device: str) -> None:
    """Raise UserError where this value of ``train.compile`` isn't supported."""
    if compiled == "off":
        return
    if zero_stage() is not None:
        raise UserError(f"train.compile is {compiled}, which DeepSpeed doesn't support: use launch/multi_gpu.yaml")
    if compiled == "graphs" and device != "cuda":
        raise UserError("train.compile is graphs, but there is no NVIDIA GPU here: try train.compile default")
    if compiled == "graphs" and (processes := integer("WORLD_SIZE", 1)) > 1:
        raise UserError(
            f"train.compile is graphs, which is untried with {processes} processes: try train.compile default"
        )
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if device == "cpu" and shutil.which(compiler) is None:
        raise UserError(f"train.compile is {compiled}, but there is no {compiler} here: try train.compile off")


def zero_stage() -> int | None:
    """The ZeRO stage (1, 2 or 3) if the launcher asks for DeepSpeed, else None."""
    return integer("ACCELERATE_DEEPSPEED_ZERO_STAGE", 2) if flag("ACCELERATE_USE_DEEPSPEED") else None  # the default


def _check_deepspeed(device: str, precision: str) -> None:
    """Raise UserError for parts of a launcher's ``deepspeed_config`` that aren't supported, or belong to the config."""
    if zero_stage() not in (1, 2, 3):
        raise UserError(
            f"the launcher asks for ZeRO stage {zero_stage()}, which isn't supported: use launch/multi_gpu.yaml"
        )
    if precision not in ("fp32", "bf16"):
        raise UserError(
            f"train.precision is {precision}, which DeepSpeed doesn't run: try train.precision bf16 or fp32"
        )
    if device == "mps":
        raise UserError("the launcher asks for DeepSpeed, which doesn't run on MPS devices: launch without it")
    for name, default, way_out in (
        ("DEEPSPEED_CONFIG_FILE", "", "use launch/deepspeed_zero2.yaml, which has no deepspeed_config_file"),
        ("DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE", "none", "set offload_optimizer_device none"),
        ("DEEPSPEED_OFFLOAD_PARAM_DEVICE", "none", "set offload_param_device none"),
        ("GRADIENT_ACCUMULATION_STEPS", "1", "leave it out, and set train.micro_batch_size"),
    ):
        if (asked := os.environ.get(f"ACCELERATE_{name}", default)) != default:
            raise UserError(f"the launcher asks for {name.lower()} {asked}, which isn't supported: {way_out}")


def check_clipping(key: str, clip_norm: float | None) -> None:
    """Raise UserError if the launcher's gradient clipping conflicts with a setting. key: the setting's name."""
    asked = value("ACCELERATE_GRADIENT_CLIPPING") if zero_stage() is not None else None
    if asked is not None and asked != (clip_norm or 0):
        raise UserError(
            f"the launcher asks for gradient_clipping {asked}, but {key} is {clip_norm}: leave it out of "
            f"deepspeed_config, or set {key} {asked}"
        )


def check_gradient_penalties(weights: dict[str, float]) -> None:
    """Raise UserError for gradient penalties with DeepSpeed. weights: of the penalties, by setting."""
    for key, weight in weights.items():
        if weight > 0 and zero_stage() is not None:
            raise UserError(
                f"{key} is {weight}, but DeepSpeed doesn't support double backward: use launch/multi_gpu.yaml, or set "
                f"{key} 0"
            )


@contextmanager
def without_deepspeed_plugin(device: str) -> Iterator[None]:
    """Context in which Accelerate doesn't load its DeepSpeed plugin, which supports one network only.

    Also sets the type of device for DeepSpeed, which otherwise guesses it.
    """
    asked = os.environ.pop("ACCELERATE_USE_DEEPSPEED", None)
    if asked is not None:
        os.environ["DS_ACCELERATOR"] = device
    try:
        yield
    finally:
        if asked is not None:
            os.environ["ACCELERATE_USE_DEEPSPEED"] = asked
