"""What this process runs on: device, threads, number format; and whether it is as alone as it thinks it is.

The engine decides these, per process. What ``accelerate launch`` exports by itself (``ACCELERATE_MIXED_PRECISION=no``,
``OMP_NUM_THREADS=1``) counts as unset; what it was asked for counts.
"""

import os
from typing import Literal

import torch

from colordist.config import UserError

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


def share_cores() -> None:
    """Give this process its share of the cores that it may use; a launcher would leave it one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def set_numerics(*, deterministic: bool, tf32: bool) -> None:
    """Choose how exactly this process computes. Nothing is left to a library's default."""
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with this
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32


def refuse_unfit_launch(device: str, precision: str) -> None:
    """Catch the launches that would train several times side by side, or not on what was asked for.

    Each of these would otherwise exit 0 and look fine. Raises UserError.
    """
    environment = os.environ
    for plugin in ("DEEPSPEED", "FSDP"):
        if environment.get(f"ACCELERATE_USE_{plugin}", "false").lower() == "true":
            raise UserError(f"the launcher asks for {plugin}, which colordist doesn't run: launch without it")
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
    local = int(environment.get("LOCAL_WORLD_SIZE", "1"))
    if device == "cuda" and local > torch.cuda.device_count():
        raise UserError(
            f"the launcher started {local} processes here, but there are {torch.cuda.device_count()} GPUs: "
            f"try --num_processes {torch.cuda.device_count()}"
        )
    if device == "mps" and local > 1:
        raise UserError(f"the launcher started {local} processes, but MPS has one device: try --num_processes 1")
