"""Environment variables that the launch, threads and libraries depend on: one table of their kinds.

They are checked when a verb begins, before torch and Accelerate read them: those raise whatever their parsers raise, or
wait for minutes. An odd value of any other variable is left to the library that reads it.
"""

import os
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from colordist.errors import UserError

_T = TypeVar("_T")
_TRUE, _FALSE = ("1", "true", "yes", "on", "y", "t"), ("0", "false", "no", "off", "n", "f")  # Accelerate's


@dataclass(frozen=True)
class Kind(Generic[_T]):
    """How a variable is read."""

    wanted: str
    parse: Callable[[str], _T]
    """Raises ValueError or KeyError for an invalid text."""
    way_out: str = "correct it, or unset it"


WAY_OUT = "start with accelerate launch or torchrun, or unset the variables of another launch"
"""What to do about the variables of a launch."""


def _whole(least: int = 0, most: int = 10**6, way_out: str = Kind.way_out) -> Kind[int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"\d{1,18}", text, re.ASCII) or not least <= int(text) <= most:
            raise ValueError
        return int(text)

    return Kind(f"a whole number, at least {least} and at most {most}", parse, way_out)


def _one_of(*choices: str) -> Kind[str]:
    return Kind(f"one of {', '.join(choices)}", {choice: choice for choice in choices}.__getitem__)


def _any_case(kind: Kind[_T]) -> Kind[_T]:
    return Kind(kind.wanted, lambda text: kind.parse(text.lower()), kind.way_out)


def _clipping(text: str) -> float | None:
    number = None if text in ("none", "auto") else float(text)
    if number is not None and not 0 <= number < float("inf"):
        raise ValueError
    return number


def _threads(text: str) -> int | None:
    """OpenMP's list of numbers for nested loops, of which the first counts here; none for an empty text, as there."""
    numbers = [_whole(1).parse(each.strip()) for each in text.split(",")] if text.strip() else []
    return numbers[0] if numbers else None


def _devices(text: str) -> str:
    if not re.fullmatch(r"(-?\d+|(GPU|MIG)-[\w/-]+)(, *(-?\d+|(GPU|MIG)-[\w/-]+))*,?|none|void|NoDevFiles|", text):
        raise ValueError
    return text


def _interfaces(text: str) -> str:
    is_used = bool(text) and "WORLD_SIZE" in os.environ
    if is_used and not set(text.split(",")) <= {name for _, name in socket.if_nameindex()}:
        raise ValueError
    return text


_FLAG = _any_case(Kind("true or false", (dict.fromkeys(_TRUE, True) | dict.fromkeys(_FALSE, False)).__getitem__))
_UNSUPPORTED = Kind("unset: colordist chooses the device itself", {"": ""}.__getitem__, "unset it")

VARIABLES: dict[str, Kind[Any]] = {
    "WORLD_SIZE": _whole(1, way_out=WAY_OUT),
    **dict.fromkeys(("RANK", "LOCAL_RANK"), _whole(0, way_out=WAY_OUT)),
    "LOCAL_WORLD_SIZE": _whole(1, way_out=WAY_OUT),
    "MASTER_PORT": _whole(0, 2**16 - 1, way_out=WAY_OUT),
    **{f"{mpi}_SIZE": _whole(1, way_out=WAY_OUT) for mpi in ("PMI", "OMPI_COMM_WORLD", "MV2_COMM_WORLD")},
    **{f"{mpi}_RANK": _whole(0, way_out=WAY_OUT) for mpi in ("PMI", "OMPI_COMM_WORLD", "MV2_COMM_WORLD")},
    "SLURM_STEP_NUM_TASKS": _whole(1),
    **dict.fromkeys(("SLURM_PROCID", "SLURM_LOCALID"), _whole()),
    "OMP_NUM_THREADS": Kind("a whole number, at least 1, or several, as in 4,2", _threads),
    "CUDA_VISIBLE_DEVICES": Kind("numbers or ids of GPUs, as in 0,1", _devices),
    "GLOO_SOCKET_IFNAME": Kind("network interfaces of this machine", _interfaces),
    "TORCH_DISTRIBUTED_DEBUG": _any_case(_one_of("off", "info", "detail")),
    "ACCELERATE_LOG_LEVEL": _any_case(_one_of("debug", "info", "warning", "error", "critical")),
    "ACCELERATE_TORCH_DEVICE": _UNSUPPORTED,
    **dict.fromkeys(("FORK_LAUNCHED", "USE_TORCH_XLA", "ACCELERATE_DEBUG_MODE", "ACCELERATE_CPU_AFFINITY"), _FLAG),
    **{f"ACCELERATE_USE_{name}": _FLAG for name in ("CPU", "DEEPSPEED", "FSDP", "MEGATRON_LM", "PARALLELISM_CONFIG")},
    **{f"ACCELERATE_DYNAMO_USE_{name}": _FLAG for name in ("FULLGRAPH", "DYNAMIC", "REGIONAL_COMPILATION")},
    "ACCELERATE_MIXED_PRECISION": _any_case(_one_of("no", "fp64", "fp32", "bf16", "fp16", "fp8")),
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": _whole(1),
    "ACCELERATE_GRADIENT_CLIPPING": Kind("a number or none", _clipping),
    "ACCELERATE_DEEPSPEED_ZERO_STAGE": _whole(0, 3),
    **dict.fromkeys(("HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT"), _whole(1)),
}
"""Kinds by name."""


def check() -> None:
    """Raise UserError for the first variable with an invalid value."""
    for name in VARIABLES:
        # Kubernetes sets MASTER_PORT to an address, where a service is called master.
        if name != "MASTER_PORT" or "WORLD_SIZE" in os.environ:
            value(name)


def value(name: str) -> Any:  # noqa: ANN401  of the variable's kind
    """The value of a variable; None where it is unset. Raises UserError for an invalid one."""
    if (text := os.environ.get(name)) is None:
        return None
    kind = VARIABLES[name]
    try:
        return kind.parse(text)
    except (ValueError, KeyError):
        raise UserError(f"{name} is {text!r}, but must be {kind.wanted}: {kind.way_out}") from None


def integer(name: str, default: int) -> int:
    """The value of a variable that is a whole number. Raises UserError as ``value``."""
    found = value(name)
    return default if found is None else int(found)


def flag(name: str) -> bool:
    """Whether a variable is set to true. Raises UserError as ``value``."""
    return bool(value(name))
