"""Rendezvous of a run's processes: torch's ``env://``, with a key prefix for each restart by the launcher.

The launcher's store outlives the processes. Without a prefix, processes that ``--max_restarts`` starts again would find
the addresses (torch 2.15) and heartbeats of the previous ones there, and fail.
"""

import logging
import os
import socket
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch.distributed as dist
from torch.distributed import DistError, PrefixStore, Store, TCPStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import register_rendezvous_handler, rendezvous

from colordist.engine.launch import Launch
from colordist.engine.variables import integer, value
from colordist.errors import RunError, UserError
from colordist.extras import needs_extra

if TYPE_CHECKING:
    from accelerate import Accelerator

log = logging.getLogger(__name__)

PREFLIGHT_TIMEOUT = 60.0
"""Seconds that the doctor waits for other processes."""
_REMINDER = 20.0  # seconds of silence
_METHOD = "colordist://"
_TIMEOUT = timedelta(minutes=10)
_COLLECTIVE_TIMEOUT = timedelta(days=1)  # a last resort: the monitor detects hangs, and knows exempt work

_store: Store | None = None  # of a doctor: another server at the same port would have to wait until it has ended


def join(device: str, precision: str, processes: int) -> "Accelerator":
    """Join the process group, if there are several processes, with a type of device and a precision.

    Raises UserError where Accelerate is missing, RunError if the rendezvous fails.
    """
    with needs_extra("train", "this command"):
        from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
    threads = value("OMP_NUM_THREADS")
    os.environ.pop("OMP_NUM_THREADS", None)
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)  # Accelerate takes neither a list nor an empty text
    reminder = threading.Timer(_REMINDER, log.error, [f"still waiting for all {processes} processes at {address()}"])
    reminder.daemon = True
    try:
        if processes > 1:
            reminder.start()
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
        reason = str(error).splitlines()[0].rstrip(".")
        raise RunError(
            f"the rendezvous of {processes} processes at {address()} failed ({reason}): start all of them within "
            f"{_TIMEOUT.total_seconds() / 60:.0f} minutes, where that address is reachable and its port free"
        ) from None
    finally:
        reminder.cancel()


def lift_timeout() -> None:
    """Raise the timeout of collectives, which was that of the rendezvous."""
    set_timeout = getattr(dist, "set_timeout", None) or dist.distributed_c10d._set_pg_timeout  # before torch 2.15
    set_timeout(_COLLECTIVE_TIMEOUT, dist.group.WORLD)


def address() -> str:
    """Host and port of the rendezvous."""
    return f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"


def connect(launch: Launch) -> Store:
    """Connect to the store of the rendezvous, which ``join`` then uses too. Doesn't wait for the other processes.

    Raises UserError where the environment names no rendezvous, the port is taken, or the address can't be reached.
    """
    global _store
    if not (os.environ.get("MASTER_ADDR") and os.environ.get("MASTER_PORT")):
        raise UserError(f"there are {launch.world_size} processes, but no MASTER_ADDR and MASTER_PORT: set both")
    host, port, timeout = os.environ["MASTER_ADDR"], integer("MASTER_PORT", 0), PREFLIGHT_TIMEOUT
    serves = launch.rank == 0 and not launchers_store()
    try:
        store = TCPStore(host, port, launch.world_size, serves, timedelta(seconds=timeout), wait_for_workers=False)
    except DistError as error:
        if "failed to listen" in str(error):
            reason = str(error).splitlines()[0].rpartition("message: ")[2]
            raise UserError(
                f"port {port} on {socket.gethostname()} is taken ({reason}): set another MASTER_PORT"
            ) from None
        raise UserError(
            f"{socket.gethostname()} can't reach {address()} in {timeout:.0f} s: check MASTER_ADDR, that process 0 "
            "runs there, and that no firewall blocks the port"
        ) from None
    _store = _prefixed(store)
    return _store


def launchers_store() -> bool:
    """Whether the server of the store is in rank 0's launcher rather than in rank 0."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _rendezvous_handler(_: str, **options: Any) -> Iterator[tuple[Store, int, int]]:  # noqa: ANN401  those of env://
    launch = Launch.read()
    yield _store or _prefixed(next(rendezvous("env://", **options))[0]), launch.rank, launch.world_size


def _prefixed(store: Store) -> Store:
    return PrefixStore(f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


register_rendezvous_handler(_METHOD.removesuffix("://"), _rendezvous_handler)
