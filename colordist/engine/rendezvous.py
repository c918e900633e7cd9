"""Rendezvous of a run's processes: torch's ``env://``, with a key prefix for each restart by the launcher.

The launcher's store outlives the processes. Without a prefix, processes that ``--max_restarts`` starts again would find
the addresses (torch 2.15) and heartbeats of the previous ones there, and fail.
"""

import os
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch.distributed as dist
from torch.distributed import DistError, PrefixStore, Store  # type: ignore[attr-defined]
from torch.distributed.rendezvous import register_rendezvous_handler, rendezvous

from colordist.config import RunError
from colordist.extras import needs_extra

if TYPE_CHECKING:
    from accelerate import Accelerator

_METHOD = "colordist://"
_TIMEOUT = timedelta(minutes=10)
_COLLECTIVE_TIMEOUT = timedelta(days=1)  # a last resort: the monitor detects hangs, and knows exempt work


def join(device: str, precision: str, processes: int) -> "Accelerator":
    """Join the process group, if there are several processes, with a type of device and a precision.

    Raises UserError where Accelerate is missing, RunError if the rendezvous fails.
    """
    with needs_extra("train", "this command"):
        from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
    try:
        return Accelerator(
            cpu=device == "cpu",
            mixed_precision=precision if precision in ("bf16", "fp16") else "no",
            kwargs_handlers=[
                # Buffers are the same on all processes: no need to broadcast them.
                DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True),
                InitProcessGroupKwargs(timeout=_TIMEOUT, init_method=_METHOD),
            ],
        )
    except DistError as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        reason = str(error).splitlines()[0].rstrip(".")
        raise RunError(
            f"the rendezvous of {processes} processes at {where} failed ({reason}): start all of them within "
            f"{_TIMEOUT.total_seconds() / 60:.0f} minutes, where that address is reachable and its port free"
        ) from None


def lift_timeout() -> None:
    """Raise the timeout of collectives, which was that of the rendezvous."""
    set_timeout = getattr(dist, "set_timeout", None) or dist.distributed_c10d._set_pg_timeout  # before torch 2.15
    set_timeout(_COLLECTIVE_TIMEOUT, dist.group.WORLD)


def _rendezvous_handler(_: str, **options: Any) -> Iterator[tuple[Store, int, int]]:  # noqa: ANN401  those of env://
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store, rank, world_size = next(rendezvous("env://", **options))
    yield PrefixStore(f"attempt-{attempt}", store), rank, world_size


register_rendezvous_handler(_METHOD.removesuffix("://"), _rendezvous_handler)
