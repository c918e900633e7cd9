"""Preflight checks of all machines of a run. Without torch, so that they take a second.

Each process collects facts about its machine. Rank 0 receives them at the address and port of the run's rendezvous,
which tests these, too, and compares them.
"""

import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, TextIO

from colordist import registry
from colordist.config import Config, UserError
from colordist.run.provenance import code_digest

Status = Literal["ok", "warning", "failed"]

PACKAGES = ("torch", "torchvision", "accelerate", "deepspeed", "wandb", "numpy", "pillow", "safetensors")
_SKEW = 1.0  # seconds of clock skew that file times bear; a cluster's authentication bears minutes
_SPACE = 2.0  # GiB of free space that a run folder should have
_TIMEOUT = 60.0  # seconds to wait for other processes
_PINGS = 5


@dataclass(frozen=True)
class Rendezvous:
    """Rank, world size, and address of rank 0."""

    rank: int = 0
    world_size: int = 1
    address: str = "127.0.0.1"
    port: int | None = None

    @classmethod
    def from_environment(cls) -> "Rendezvous":
        """Read the variables of the launcher, or SLURM's. Raises UserError for invalid values."""
        environment = os.environ
        try:
            rank = int(environment.get("RANK") or environment.get("SLURM_PROCID") or 0)
            world_size = int(environment.get("WORLD_SIZE") or environment.get("SLURM_STEP_NUM_TASKS") or 1)
            port = int(environment["MASTER_PORT"]) if environment.get("MASTER_PORT") else None
        except ValueError as error:
            raise UserError(f"RANK, WORLD_SIZE or MASTER_PORT is no number ({error}): unset them") from None
        if port is not None and "TORCHELASTIC_RUN_ID" in environment:
            port += 1  # the launcher's own rendezvous listens at MASTER_PORT
        if world_size > 1 and port is None:
            raise UserError(f"there are {world_size} processes, but no MASTER_ADDR and MASTER_PORT: set both")
        return cls(rank, world_size, environment.get("MASTER_ADDR", "127.0.0.1"), port)

    def export(self) -> None:
        """Set the variables of a launcher, for PyTorch, in a task of SLURM that has none."""
        if self.world_size > 1 and "WORLD_SIZE" not in os.environ:
            local = os.environ.get("SLURM_LOCALID", "0")
            os.environ.update(RANK=str(self.rank), WORLD_SIZE=str(self.world_size), LOCAL_RANK=local)


@dataclass(frozen=True)
class Facts:
    """One process's facts about its machine."""

    rank: int
    host: str
    versions: dict[str, str]
    devices: str
    free: float
    """Free space at the run folder, in GiB."""
    folder: str
    """Why the run folder isn't writable; empty if it is."""
    data: str
    """Why the images aren't available without a download; empty if they are."""
    weights: str = ""
    """Why weights that the run begins with aren't available; empty if they are."""
    skew: float = 0.0
    """Seconds by which its clock is ahead of rank 0's."""
    shares_folder: bool = True
    """Whether a file that rank 0 wrote into the run folder is visible here."""


@dataclass(frozen=True)
class Finding:
    """One row of the table."""

    name: str
    status: Status
    value: str
    way_out: str = ""


def collect(config: Config, run: Path, rank: int, weights: str = "") -> Facts:
    """Collect the facts about this machine. Creates the run folder for a moment if there is none.

    weights: as in ``Facts``.
    """
    folder, free = _try_folder(run)
    return Facts(
        rank=rank,
        host=socket.gethostname(),
        versions={"python": platform.python_version(), "colordist": code_digest()} | _versions(),
        devices=_devices(),
        free=free,
        folder=folder,
        data=registry.component("source", config.data.source)(config.data).missing(),
        weights=weights,
    )


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _devices() -> str:
    """Number and name of the GPUs, and number of CPU cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if shutil.which("nvidia-smi") and os.environ.get("CUDA_VISIBLE_DEVICES") != "":
        with suppress(OSError, subprocess.SubprocessError):
            command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
            lines = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.splitlines()
            if lines:
                return f"{len(lines)} x {lines[0].strip()}, {cores} cores"
    return f"no GPU, {cores} cores"


def _try_folder(run: Path) -> tuple[str, float]:
    """Why a folder isn't writable (empty if it is), and its free space in GiB."""
    created = [folder for folder in (run, *run.parents) if not folder.exists()]
    probe = run / f".doctor-{uuid.uuid4().hex}"
    try:
        run.mkdir(parents=True, exist_ok=True)
        probe.write_text("")
        free = shutil.disk_usage(run).free / 2**30
        probe.unlink()
        return "", free
    except OSError as error:
        return f"{run} can't be written ({error.strerror})", 0.0
    finally:
        for folder in created:
            with suppress(OSError):
                folder.rmdir()


# --- exchange


def exchange(rendezvous: Rendezvous, facts: Facts, run: Path) -> tuple[list[Finding], bool]:
    """Gather the facts of all processes on rank 0 and assess them. Returns the findings (rank 0 only).

    Returns also, on all processes, whether no check failed. Raises UserError where the port is taken, or a process
    doesn't connect.
    """
    if rendezvous.world_size > 1 and rendezvous.rank > 0:
        return [], _send(rendezvous, facts, run)
    if rendezvous.world_size > 1:
        return _gather(rendezvous, facts, run)
    if rendezvous.port is not None:
        _listen(rendezvous).close()
    findings = assess([facts], run)
    return findings, not failed(findings)


def _listen(rendezvous: Rendezvous) -> socket.socket:
    assert rendezvous.port is not None
    try:
        listener = socket.create_server(("", rendezvous.port), backlog=rendezvous.world_size)
    except OSError as error:
        raise UserError(
            f"port {rendezvous.port} on {socket.gethostname()} is taken ({error.strerror}): set another MASTER_PORT"
        ) from None
    listener.settimeout(_TIMEOUT)
    return listener


def _gather(rendezvous: Rendezvous, facts: Facts, run: Path) -> tuple[list[Finding], bool]:
    """Receive the facts of all other processes, then send each whether no check failed."""
    gathered = {0: facts}
    with ExitStack() as stack:
        listener = stack.enter_context(_listen(rendezvous))
        token = stack.enter_context(_token(run))
        others = []
        while len(gathered) < rendezvous.world_size:
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                missing = ", ".join(str(rank) for rank in range(rendezvous.world_size) if rank not in gathered)
                raise UserError(
                    f"process {missing} didn't connect to {rendezvous.address}:{rendezvous.port} in {_TIMEOUT:.0f} s: "
                    "check that its machine is up and reaches this one"
                ) from None
            lines = stack.enter_context(stack.enter_context(connection).makefile("rw"))
            connection.settimeout(_TIMEOUT)
            other = _receive(lines, token)
            gathered[other.rank] = other
            others.append(lines)
        findings = assess([gathered[rank] for rank in sorted(gathered)], run)
        for lines in others:
            _write(lines, {"passed": not failed(findings)})
    return findings, not failed(findings)


@contextmanager
def _token(run: Path) -> Iterator[str]:
    """Name of a temporary file in the run folder: a process that sees the file shares the folder."""
    token = uuid.uuid4().hex
    existed, probe = run.exists(), run / f".doctor-{token}"
    with suppress(OSError):  # not writable: that is among the facts
        run.mkdir(parents=True, exist_ok=True)
        probe.write_text(token)
    try:
        yield token
    finally:
        with suppress(OSError):
            probe.unlink()
        if not existed:
            with suppress(OSError):
                run.rmdir()


def _receive(lines: TextIO, token: str) -> Facts:
    """Measure the clock skew of one other process, send it the token, and receive its facts."""
    skews = []
    for _ in range(_PINGS):
        sent = time.time()
        _write(lines, {})
        theirs = json.loads(lines.readline())["time"]
        skews.append(theirs - (sent + time.time()) / 2)  # assumes equal latency both ways
    _write(lines, {"token": token})
    return Facts(**(json.loads(lines.readline()) | {"skew": statistics.median(skews)}))


def _send(rendezvous: Rendezvous, facts: Facts, run: Path) -> bool:
    """Send this process's facts to rank 0. Returns whether no check failed anywhere."""
    with _connect(rendezvous) as connection, connection.makefile("rw") as lines:
        for _ in range(_PINGS):
            lines.readline()
            _write(lines, {"time": time.time()})
        token = json.loads(lines.readline())["token"]
        _write(lines, vars(facts) | {"shares_folder": (run / f".doctor-{token}").exists()})
        verdict = lines.readline()
    return bool(verdict and json.loads(verdict)["passed"])


def _connect(rendezvous: Rendezvous) -> socket.socket:
    deadline = time.monotonic() + _TIMEOUT
    assert rendezvous.port is not None
    while True:
        try:
            return socket.create_connection((rendezvous.address, rendezvous.port), timeout=_TIMEOUT)
        except OSError as error:  # rank 0 may not listen yet
            if time.monotonic() > deadline:
                raise UserError(
                    f"{socket.gethostname()} can't reach {rendezvous.address}:{rendezvous.port} "
                    f"({error.strerror or error}): check MASTER_ADDR, and that no firewall blocks the port"
                ) from None
            time.sleep(0.2)


def _write(lines: TextIO, message: dict[str, Any]) -> None:
    lines.write(json.dumps(message) + "\n")
    lines.flush()


# --- assessment


def assess(facts: Sequence[Facts], run: Path) -> list[Finding]:
    """Assess the facts of all processes, in order of rank. Returns one finding per check."""
    hosts = list(dict.fromkeys(each.host for each in facts))
    findings = [Finding("processes", "ok", f"{len(facts)} on {len(hosts)} machines: {', '.join(hosts[:8])}")]
    for name in dict.fromkeys(name for each in facts for name in each.versions):
        findings.append(_compare(name, facts, [each.versions.get(name, "none") for each in facts]))
    devices = _compare("devices", facts, [each.devices for each in facts])
    findings.append(Finding("devices", "ok" if devices.status == "ok" else "warning", devices.value, devices.way_out))
    findings += [_folder(facts, run), _shared(facts), _space(facts), _clocks(facts), _data(facts), _weights(facts)]
    return findings


def _compare(name: str, facts: Sequence[Facts], values: Sequence[str]) -> Finding:
    hosts: dict[str, set[str]] = {}
    for each, value in zip(facts, values, strict=True):
        hosts.setdefault(value, set()).add(each.host)
    if len(hosts) == 1:
        return Finding(name, "ok", values[0])
    differing = ", ".join(f"{value} on {' '.join(sorted(where))}" for value, where in hosts.items())
    return Finding(name, "failed", differing, "install the same on every machine")


def _folder(facts: Sequence[Facts], run: Path) -> Finding:
    bad = [each for each in facts if each.folder]
    if not bad:
        return Finding("run folder", "ok", f"{run} is writable")
    return Finding("run folder", "failed", f"{bad[0].folder} on {bad[0].host}", "name another --run.dir")


def _shared(facts: Sequence[Facts]) -> Finding:
    bad = sorted({each.host for each in facts if not each.shares_folder})
    if not bad:
        return Finding("shared disk", "ok", "every machine sees the same run folder")
    return Finding("shared disk", "failed", f"{' '.join(bad)} sees another run folder", "put it on a shared disk")


def _space(facts: Sequence[Facts]) -> Finding:
    least = min(facts, key=lambda each: each.free)
    enough = least.free >= _SPACE or bool(least.folder)
    return Finding("free space", "ok" if enough else "warning", f"{least.free:.1f} GiB", "" if enough else "free some")


def _clocks(facts: Sequence[Facts]) -> Finding:
    worst = max(facts, key=lambda each: abs(each.skew))
    if abs(worst.skew) <= _SKEW:
        return Finding("clocks", "ok", f"at most {abs(worst.skew):.3f} s apart")
    return Finding("clocks", "warning", f"{worst.host} is {worst.skew:+.1f} s off", "synchronise the clocks (NTP)")


def _data(facts: Sequence[Facts]) -> Finding:
    bad = [each for each in facts if each.data]
    if not bad:
        return Finding("images", "ok", "present, nothing to download")
    return Finding("images", "failed", f"{bad[0].data}, on {bad[0].host}", "download them first, with internet access")


def _weights(facts: Sequence[Facts]) -> Finding:
    bad = [each for each in facts if each.weights]
    if not bad:
        return Finding("weights", "ok", "present, or none needed")
    return Finding("weights", "failed", f"unavailable on {bad[0].host}", bad[0].weights)


def failed(findings: Sequence[Finding]) -> bool:
    """Whether any check failed."""
    return any(finding.status == "failed" for finding in findings)


def table(findings: Sequence[Finding]) -> str:
    """Format the findings, one per line."""
    signs = {"ok": "ok", "warning": "!!", "failed": "NO"}
    width = max(len(finding.name) for finding in findings)
    return "\n".join(
        f"{signs[each.status]}  {each.name:<{width}}  {each.value}" + (f": {each.way_out}" if each.way_out else "")
        for each in findings
    )
