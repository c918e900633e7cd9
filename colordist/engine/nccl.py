"""NCCL, the backend of GPUs: how its failures are noticed, and what is said about them."""

import os

import torch
import torch.distributed as dist

from colordist.errors import RunError


def disable_error_handling() -> None:
    """Have PyTorch report NCCL's errors instead of aborting. Must be called before the process group is created.

    It would end each process, after some seconds, with a page of C++ frames and a trace file in the user's home.
    """
    os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0")
    os.environ.setdefault("TORCH_NCCL_DUMP_ON_TIMEOUT", "0")  # up to PyTorch 2.14
    os.environ.setdefault("TORCH_FR_BUFFER_SIZE", "0")  # from 2.15 on


def group_error(device: torch.device) -> str:
    """The error that PyTorch found in the background on the process group of a type of device; empty for none."""
    backend = dist.group.WORLD._get_backend(device)  # type: ignore[union-attr]
    error = backend.get_error().name if hasattr(backend, "get_error") else "SUCCESS"
    return "" if error == "SUCCESS" else f"NCCL: {error.lower().replace('_', ' ')}"


def start_error(error: RuntimeError, processes: int) -> RunError:
    """The error for an NCCL that can't start, with its reason and what to try."""
    reason = _reason(str(error))
    if "Duplicate GPU" in reason:
        way_out = "start one process for each GPU; all MIG devices of a GPU count as one"
    else:
        way_out = (
            "NCCL_DEBUG=INFO shows more; in a container try a larger /dev/shm, on several machines "
            "NCCL_SOCKET_IFNAME, which names a network that connects all machines"
        )
    return RunError(f"NCCL failed to start on {processes} processes ({reason}): {way_out}")


def _reason(text: str) -> str:
    """NCCL's own last error, if the text has it, else its first line. PyTorch 2.15 has only that."""
    _, _, last = text.partition("Last error:")
    return (last.strip() or text).splitlines()[0].strip()[:300]
