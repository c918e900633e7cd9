"""What this process runs on: device, threads, number format; and whether it is as alone as it thinks it is.

The engine decides these, per process. What ``accelerate launch`` exports by itself (``ACCELERATE_MIXED_PRECISION=no``,
``OMP_NUM_THREADS=1``) counts as unset; what it was asked for counts.
"""

import ctypes
import os
import resource
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from colordist.config import Compiled, UserError
from colordist.engine.launch import number

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h

Precision = Literal["fp64", "fp32", "bf16", "fp16"]


def device_type() -> Literal["cuda", "mps", "cpu"]:
    """The best kind of device here; the CPU if ``accelerate launch --cpu`` asks for it."""
    if os.environ.get("ACCELERATE_USE_CPU", "false").lower() == "true":
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def resolve_precision(precision: str, device: str) -> Precision:
    """Turn ``auto`` into a number format, and refuse what the device doesn't have."""
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
    """The most memory that this process has had at once so far, in MB: the GPU's, where there is one."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    unit = 1 if sys.platform == "darwin" else 1024  # what the kernel counts in
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def share_cores() -> None:
    """Give this process its share of the cores that it may use; a launcher would leave it one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(max(1, cores // number("LOCAL_WORLD_SIZE", 1, at_least=1)))


def keep_freed_memory() -> None:
    """Let the C library keep what is freed for what is allocated next, where it is glibc.

    By default glibc gives buffers of 32 MB and more back to the system at once, and smaller ones when many are free;
    in the next step the system maps them again and clears them page by page, a fifth of a step's time at 256x256.
    """
    for setting in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"):
        if setting in os.environ:  # whoever sets these knows better
            return
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(_M_MMAP_THRESHOLD, 2**30) or library.mallopt(_M_MMAP_THRESHOLD, 2**25)  # the most before 2.35
        library.mallopt(_M_TRIM_THRESHOLD, -1)  # never


def set_numerics(*, deterministic: bool, tf32: bool) -> None:
    """Choose how exactly this process computes. Nothing is left to a library's default."""
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with this
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32


def check_launch(device: str, precision: str) -> None:
    """Catch the launches that would train several times side by side, or not on what was asked for.

    Each of these would otherwise exit 0 and look fine. Raises UserError.
    """
    environment = os.environ
    if environment.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
        raise UserError("the launcher asks for FSDP, which colordist doesn't run: use launch/deepspeed_zero3.yaml")
    if zero_stage() is not None:
        _check_deepspeed(device, precision)
    if (asked := environment.get("ACCELERATE_MIXED_PRECISION", "no")) not in ("no", precision):
        raise UserError(
            f"the launcher asks for {asked}, but train.precision is {precision}: launch with --mixed_precision no, or "
            f"set train.precision {asked}"
        )
    if environment.get("ACCELERATE_DYNAMO_BACKEND", "no").lower() != "no":
        raise UserError("the launcher asks for a dynamo backend, which colordist doesn't use: --dynamo_backend no")
    # With several processes asked for, accelerate's simple launcher names a meeting point but starts one process.
    if "MASTER_ADDR" in environment and "WORLD_SIZE" not in environment:
        raise UserError(
            "the launcher was asked for several processes but started only one: add --multi_gpu (on CPUs too), or use "
            "accelerate launch --config_file launch/cpu.yaml"
        )
    local = number("LOCAL_WORLD_SIZE", 1, at_least=1)
    if device == "cuda" and local > torch.cuda.device_count():
        raise UserError(
            f"the launcher started {local} processes here, but there are {torch.cuda.device_count()} GPUs: "
            f"try --num_processes {torch.cuda.device_count()}"
        )
    if device == "mps" and local > 1:
        raise UserError(f"the launcher started {local} processes, but MPS has one device: try --num_processes 1")
    if number("WORLD_SIZE", 1, at_least=1) > 1 and not environment.get("MASTER_ADDR"):
        raise UserError(
            f"WORLD_SIZE is {environment['WORLD_SIZE']}, but MASTER_ADDR is not set, so processes can't meet: "
            "set it to the first one's machine, or start with accelerate launch or torchrun"
        )


def check_compilation(compiled: Compiled, device: str) -> None:
    """Raise UserError where what ``train.compile`` asks for can't be had."""
    if compiled == "off":
        return
    if zero_stage() is not None:
        raise UserError(f"train.compile is {compiled}, which isn't done with DeepSpeed: use launch/multi_gpu.yaml")
    if compiled == "graphs" and device != "cuda":
        raise UserError("train.compile is graphs, but there is no NVIDIA GPU here: try train.compile default")
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if device == "cpu" and shutil.which(compiler) is None:
        raise UserError(f"train.compile is {compiled}, but there is no {compiler} here: try train.compile off")


def zero_stage() -> int | None:
    """How much DeepSpeed divides among the processes, if the launcher asks for it: stage 1, 2 or 3 of ZeRO."""
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() != "true":
        return None
    return int(os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2"))  # accelerate's default


def _check_deepspeed(device: str, precision: str) -> None:
    """What else a launcher's ``deepspeed_config`` may ask for is done by none of us, or is for the config to say."""
    if zero_stage() not in (1, 2, 3):
        raise UserError(
            f"the launcher asks for ZeRO stage {zero_stage()}, which is no DeepSpeed: use launch/multi_gpu.yaml"
        )
    if precision not in ("fp32", "bf16"):
        raise UserError(
            f"train.precision is {precision}, which DeepSpeed doesn't run: try train.precision bf16 or fp32"
        )
    if device == "mps":
        raise UserError("the launcher asks for DeepSpeed, which doesn't run on MPS devices: launch without it")
    for name, value, way_out in (
        ("DEEPSPEED_CONFIG_FILE", "", "use launch/deepspeed_zero2.yaml, which has no deepspeed_config_file"),
        ("DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE", "none", "set offload_optimizer_device none"),
        ("DEEPSPEED_OFFLOAD_PARAM_DEVICE", "none", "set offload_param_device none"),
        ("GRADIENT_ACCUMULATION_STEPS", "1", "leave it out, and set train.micro_batch_size"),
    ):
        if (asked := os.environ.get(f"ACCELERATE_{name}", value)) != value:
            raise UserError(f"the launcher asks for {name.lower()} {asked}, which colordist doesn't obey: {way_out}")


def check_clipping(key: str, clip_norm: float | None) -> None:
    """Raise UserError if the launcher would shorten gradients otherwise than a setting says. key: its name."""
    asked = os.environ.get("ACCELERATE_GRADIENT_CLIPPING", "none") if zero_stage() is not None else "none"
    if asked != "none" and float(asked) != (clip_norm or 0):
        raise UserError(
            f"the launcher asks for gradient_clipping {asked}, but {key} is {clip_norm}: leave it out of "
            f"deepspeed_config, or set {key} {asked}"
        )


def check_gradient_penalties(weights: dict[str, float]) -> None:
    """Raise UserError if the launcher asks for DeepSpeed and a loss has gradients in it. weights: of these, by key."""
    for key, weight in weights.items():
        if weight > 0 and zero_stage() is not None:
            raise UserError(
                f"{key} is {weight}, but colordist doesn't differentiate twice with DeepSpeed: use "
                f"launch/multi_gpu.yaml, or set {key} 0"
            )


@contextmanager
def deepspeed_settled(device: str) -> Iterator[None]:
    """In here, Accelerate doesn't run DeepSpeed its own way, which is for one network. Later, it knows its device."""
    asked = os.environ.pop("ACCELERATE_USE_DEEPSPEED", None)
    if asked is not None:
        os.environ["DS_ACCELERATOR"] = device
    try:
        yield
    finally:
        if asked is not None:
            os.environ["ACCELERATE_USE_DEEPSPEED"] = asked
