"""Exchange of the facts of all processes, through the store of the run's rendezvous.

Without a process group: gloo fails where NCCL works, e.g. where a machine's own name resolves to a loopback address.
"""

import json
import statistics
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path

from torch.distributed import DistError, Store  # type: ignore[attr-defined]

from colordist.engine.launch import Launch
from colordist.engine.preflight.facts import Facts
from colordist.engine.preflight.findings import Finding, assess, failed
from colordist.engine.rendezvous import PREFLIGHT_TIMEOUT, address
from colordist.errors import UserError

_CLOCK_READINGS = 5


def exchange(store: Store, launch: Launch, facts: Facts, run: Path) -> tuple[list[Finding], bool]:
    """Gather the facts of all processes on rank 0 and assess them. Returns the findings (rank 0 only).

    Returns also, on all processes, whether no check failed. Raises UserError where a process is missing.
    """
    try:
        return _receive(store, launch.world_size, facts, run) if launch.rank == 0 else _send(store, launch, facts, run)
    except DistError:
        who = "another process" if launch.rank == 0 else f"process 0 at {address()}"
        raise UserError(f"{who} has ended or doesn't respond: see its own output") from None


def _receive(store: Store, world_size: int, facts: Facts, run: Path) -> tuple[list[Finding], bool]:
    """Receive the facts of all other processes and send them whether no check failed."""
    _wait_for_connections(store, world_size)
    with _token(run) as token:
        store.set("token", token)
        own_clock = _read_clock(store, world_size)
        gathered = [facts]
        for rank in range(1, world_size):
            clock, values = json.loads(store.get(f"facts/{rank}"))
            skew = statistics.median(theirs - own for theirs, own in zip(clock, own_clock, strict=True))
            gathered.append(Facts(**values | {"skew": skew}))
    findings = assess(gathered, run)
    store.set("passed", json.dumps(not failed(findings)))
    store.wait([f"left/{rank}" for rank in range(1, world_size)])  # the store may end with this process
    return findings, not failed(findings)


def _send(store: Store, launch: Launch, facts: Facts, run: Path) -> tuple[list[Finding], bool]:
    """Send this process's facts to rank 0 and receive whether no check failed anywhere."""
    store.set(f"connected/{launch.rank}", "")
    store.wait(["token"], timedelta(seconds=2 * PREFLIGHT_TIMEOUT))  # longer than process 0 waits, which says for whom
    probe = run / f".doctor-{store.get('token').decode()}"
    clock = _read_clock(store, launch.world_size)
    store.set(f"facts/{launch.rank}", json.dumps([clock, asdict(replace(facts, shares_folder=probe.exists()))]))
    passed = bool(json.loads(store.get("passed")))
    store.set(f"left/{launch.rank}", "")
    return [], passed


def _wait_for_connections(store: Store, world_size: int) -> None:
    """Wait until all other processes have connected. Raises UserError that names those that haven't."""
    keys = {rank: f"connected/{rank}" for rank in range(1, world_size)}
    try:
        store.wait(list(keys.values()), timedelta(seconds=PREFLIGHT_TIMEOUT))
    except DistError:
        missing = ", ".join(str(rank) for rank, key in keys.items() if not store.check([key]))
        raise UserError(
            f"process {missing} didn't connect to {address()} in {PREFLIGHT_TIMEOUT:.0f} s: "
            "check that its machine is up and reaches this one"
        ) from None


def _read_clock(store: Store, world_size: int) -> Sequence[float]:
    """Read this machine's clock a few times, at the same moment as all other processes: after a barrier."""
    readings = []
    for number in range(_CLOCK_READINGS):
        if store.add(f"clock/{number}", 1) == world_size:
            store.set(f"clock/{number}/now", "")
        store.wait([f"clock/{number}/now"])
        readings.append(time.time())
    return readings


@contextmanager
def _token(run: Path) -> Iterator[str]:
    """Name of a temporary file in the run folder: a process that sees the file shares the folder."""
    token = uuid.uuid4().hex
    existed, probe = run.exists(), run / f".doctor-{token}"
    with suppress(OSError):  # not writable: that is among the facts
        run.mkdir(parents=True, exist_ok=True)
        probe.write_text(token, "utf-8")
    try:
        yield token
    finally:
        with suppress(OSError):
            probe.unlink()
        if not existed:
            with suppress(OSError):
                run.rmdir()
