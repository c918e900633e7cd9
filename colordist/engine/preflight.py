"""Is everything there for a run, on every machine that takes part? Without torch, so that it takes a second.

Each process collects facts about its machine. They meet at the address and port that the run will meet at, so that is
tried too; the first process compares.
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
_SKEW = 1.0  # seconds that clocks may differ: tickets of a cluster's authentication bear minutes, file times don't
_SPACE = 2.0  # GiB that a run folder should have free
_TIMEOUT = 60.0  # seconds to wait for the other processes
_PINGS = 5


@dataclass(frozen=True)
class Place:
    """Which process this is, of how many, and where they meet."""

    rank: int = 0
    world_size: int = 1
    address: str = "127.0.0.1"
    port: int | None = None

    @classmethod
    def here(cls) -> "Place":
        """From what the launcher, or SLURM, says. Raises UserError for values that make no sense."""
        environment = os.environ
        try:
            rank = int(environment.get("RANK") or environment.get("SLURM_PROCID") or 0)
            world_size = int(environment.get("WORLD_SIZE") or environment.get("SLURM_STEP_NUM_TASKS") or 1)
            port = int(environment["MASTER_PORT"]) if environment.get("MASTER_PORT") else None
        except ValueError as error:
            raise UserError(f"RANK, WORLD_SIZE or MASTER_PORT is no number ({error}): unset them") from None
        if port is not None and "TORCHELASTIC_RUN_ID" in environment:
            port += 1  # a launcher of processes meets there itself
        if world_size > 1 and port is None:
            raise UserError("several processes, but no MASTER_ADDR and MASTER_PORT to meet at: set both")
        return cls(rank, world_size, environment.get("MASTER_ADDR", "127.0.0.1"), port)


@dataclass(frozen=True)
class Facts:
    """What one process found on its machine."""

    rank: int
    host: str
    versions: dict[str, str]
    devices: str
    free: float
    """GiB in the run folder."""
    folder: str
    """Why nothing can be written into the run folder; empty if it can."""
    data: str
    """Why the images can't be had without a download; empty if they can."""
    skew: float = 0.0
    """Seconds by which its clock is ahead of the first process's."""
    shares_folder: bool = True
    """Whether it sees what the first process wrote into the run folder."""


@dataclass(frozen=True)
class Finding:
    """One row of the table."""

    name: str
    status: Status
    value: str
    way_out: str = ""


def collect(config: Config, run: Path, rank: int) -> Facts:
    """The facts about this machine. Makes the run folder if there is none, and takes it away again."""
    folder, free = _try_folder(run)
    return Facts(
        rank=rank,
        host=socket.gethostname(),
        versions={"python": platform.python_version(), "colordist": code_digest()} | _versions(),
        devices=_devices(),
        free=free,
        folder=folder,
        data=registry.component("source", config.data.source)(config.data).missing(),
    )


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _devices() -> str:
    """The GPUs that this process may use, else the CPU's cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if shutil.which("nvidia-smi") and os.environ.get("CUDA_VISIBLE_DEVICES") != "":
        with suppress(OSError, subprocess.SubprocessError):
            command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
            lines = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.splitlines()
            if lines:
                return f"{len(lines)} x {lines[0].strip()}, {cores} cores"
    return f"no GPU, {cores} cores"


def _try_folder(run: Path) -> tuple[str, float]:
    """Why nothing can be written into a folder, empty if it can; and the GiB that are free there."""
    made = [folder for folder in (run, *run.parents) if not folder.exists()]
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
        for folder in made:
            with suppress(OSError):
                folder.rmdir()


# --- meeting


def meet(place: Place, facts: Facts, run: Path) -> tuple[list[Finding], bool]:
    """Bring everybody's facts to the first process, which judges them: its findings, the others get none.

    Returns also, on every process, whether nothing failed. Raises UserError where they can't meet: the port is taken,
    or somebody doesn't come.
    """
    if place.world_size > 1 and place.rank > 0:
        return [], _report(place, facts, run)
    if place.world_size > 1:
        return _receive(place, facts, run)
    if place.port is not None:
        _listen(place).close()
    findings = judge([facts], run)
    return findings, not failed(findings)


def _listen(place: Place) -> socket.socket:
    assert place.port is not None
    try:
        listener = socket.create_server(("", place.port), backlog=place.world_size)
    except OSError as error:
        raise UserError(
            f"port {place.port} on {socket.gethostname()} is taken ({error.strerror}): set another MASTER_PORT"
        ) from None
    listener.settimeout(_TIMEOUT)
    return listener


def _receive(place: Place, facts: Facts, run: Path) -> tuple[list[Finding], bool]:
    """Hear everybody out, then tell them whether to go on."""
    everybody = {0: facts}
    with ExitStack() as stack:
        listener = stack.enter_context(_listen(place))
        token = stack.enter_context(_token(run))
        others = []
        while len(everybody) < place.world_size:
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                missing = ", ".join(str(rank) for rank in range(place.world_size) if rank not in everybody)
                raise UserError(
                    f"process {missing} didn't come to {place.address}:{place.port} in {_TIMEOUT:.0f} s: see whether "
                    "its machine is up and can reach this one"
                ) from None
            lines = stack.enter_context(stack.enter_context(connection).makefile("rw"))
            connection.settimeout(_TIMEOUT)
            other = _hear(lines, token)
            everybody[other.rank] = other
            others.append(lines)
        findings = judge([everybody[rank] for rank in sorted(everybody)], run)
        for lines in others:
            _write(lines, {"go on": not failed(findings)})
    return findings, not failed(findings)


@contextmanager
def _token(run: Path) -> Iterator[str]:
    """A word that lies in the run folder for a while: whoever finds it there sees the same folder."""
    token = uuid.uuid4().hex
    existed, mark = run.exists(), run / f".doctor-{token}"
    with suppress(OSError):  # it can't be written: that is among the facts
        run.mkdir(parents=True, exist_ok=True)
        mark.write_text(token)
    try:
        yield token
    finally:
        with suppress(OSError):
            mark.unlink()
        if not existed:
            with suppress(OSError):
                run.rmdir()


def _hear(lines: TextIO, token: str) -> Facts:
    """One other process: compare clocks, give it the token, take its facts."""
    skews = []
    for _ in range(_PINGS):
        sent = time.time()
        _write(lines, {})
        theirs = json.loads(lines.readline())["time"]
        skews.append(theirs - (sent + time.time()) / 2)  # as if both ways took the same time
    _write(lines, {"token": token})
    return Facts(**(json.loads(lines.readline()) | {"skew": statistics.median(skews)}))


def _report(place: Place, facts: Facts, run: Path) -> bool:
    """Give the first process this one's facts. Returns whether to go on."""
    with _connect(place) as connection, connection.makefile("rw") as lines:
        for _ in range(_PINGS):
            lines.readline()
            _write(lines, {"time": time.time()})
        token = json.loads(lines.readline())["token"]
        _write(lines, vars(facts) | {"shares_folder": (run / f".doctor-{token}").exists()})
        verdict = lines.readline()
    return bool(verdict and json.loads(verdict)["go on"])


def _connect(place: Place) -> socket.socket:
    deadline = time.monotonic() + _TIMEOUT
    assert place.port is not None
    while True:
        try:
            return socket.create_connection((place.address, place.port), timeout=_TIMEOUT)
        except OSError as error:  # the first process isn't there yet
            if time.monotonic() > deadline:
                raise UserError(
                    f"{socket.gethostname()} can't reach {place.address}:{place.port} "
                    f"({error.strerror or error}): see whether the name is right and no firewall is between"
                ) from None
            time.sleep(0.2)


def _write(lines: TextIO, message: dict[str, Any]) -> None:
    lines.write(json.dumps(message) + "\n")
    lines.flush()


# --- judging


def judge(everybody: Sequence[Facts], run: Path) -> list[Finding]:
    """One row for each thing that was looked at."""
    hosts = list(dict.fromkeys(facts.host for facts in everybody))
    findings = [Finding("processes", "ok", f"{len(everybody)} on {len(hosts)} machines: {', '.join(hosts[:8])}")]
    for name in dict.fromkeys(name for facts in everybody for name in facts.versions):
        findings.append(_compare(name, everybody, [facts.versions.get(name, "none") for facts in everybody]))
    devices = _compare("devices", everybody, [facts.devices for facts in everybody])
    findings.append(Finding("devices", "ok" if devices.status == "ok" else "warning", devices.value, devices.way_out))
    findings += [_folder(everybody, run), _shared(everybody), _space(everybody), _clocks(everybody), _data(everybody)]
    return findings


def _compare(name: str, everybody: Sequence[Facts], told: Sequence[str]) -> Finding:
    values: dict[str, list[str]] = {}
    for facts, value in zip(everybody, told, strict=True):
        values.setdefault(value, []).append(facts.host)
    if len(values) == 1:
        return Finding(name, "ok", next(iter(values)))
    differing = ", ".join(f"{value} on {' '.join(sorted(set(hosts)))}" for value, hosts in values.items())
    return Finding(name, "failed", differing, "install the same on every machine")


def _folder(everybody: Sequence[Facts], run: Path) -> Finding:
    bad = [facts for facts in everybody if facts.folder]
    if not bad:
        return Finding("run folder", "ok", f"{run} can be written")
    return Finding("run folder", "failed", f"{bad[0].folder} on {bad[0].host}", "name another --run.dir")


def _shared(everybody: Sequence[Facts]) -> Finding:
    bad = sorted({facts.host for facts in everybody if not facts.shares_folder})
    if not bad:
        return Finding("shared disk", "ok", "every machine sees the same run folder")
    return Finding("shared disk", "failed", f"{' '.join(bad)} sees another run folder", "put it on a shared disk")


def _space(everybody: Sequence[Facts]) -> Finding:
    least = min(everybody, key=lambda facts: facts.free)
    enough = least.free >= _SPACE or bool(least.folder)
    return Finding("free space", "ok" if enough else "warning", f"{least.free:.1f} GiB", "" if enough else "make room")


def _clocks(everybody: Sequence[Facts]) -> Finding:
    worst = max(everybody, key=lambda facts: abs(facts.skew))
    if abs(worst.skew) <= _SKEW:
        return Finding("clocks", "ok", f"at most {abs(worst.skew):.3f} s apart")
    return Finding(
        "clocks", "warning", f"{worst.host} is {worst.skew:+.1f} s off", "let the machines ask a time server"
    )


def _data(everybody: Sequence[Facts]) -> Finding:
    bad = [facts for facts in everybody if facts.data]
    if not bad:
        return Finding("images", "ok", "there, nothing to download")
    return Finding("images", "failed", f"{bad[0].data}, on {bad[0].host}", "fetch them first, where there is internet")


def failed(findings: Sequence[Finding]) -> bool:
    """Whether a run would fail."""
    return any(finding.status == "failed" for finding in findings)


def table(findings: Sequence[Finding]) -> str:
    """The findings, one a line."""
    signs = {"ok": "ok", "warning": "!!", "failed": "NO"}
    width = max(len(finding.name) for finding in findings)
    return "\n".join(
        f"{signs[each.status]}  {each.name:<{width}}  {each.value}" + (f": {each.way_out}" if each.way_out else "")
        for each in findings
    )
