"""The facts that each process collects about its machine."""

import os
import platform
import shutil
import socket
import subprocess
import uuid
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from colordist import registry
from colordist.config import Config
from colordist.engine.environment import own_cores
from colordist.run.provenance import code_digest

PACKAGES = ("torch", "torchvision", "accelerate", "deepspeed", "wandb", "numpy", "pillow", "safetensors")


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
    cores = len(own_cores())
    if shutil.which("nvidia-smi") and os.environ.get("CUDA_VISIBLE_DEVICES") != "":
        with suppress(OSError, subprocess.SubprocessError):
            command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
            lines = subprocess.run(
                command, capture_output=True, encoding="utf-8", errors="replace", timeout=20, check=True
            ).stdout.splitlines()
            if lines:
                return f"{len(lines)} x {lines[0].strip()}, {cores} cores"
    return f"no GPU, {cores} cores"


def _try_folder(run: Path) -> tuple[str, float]:
    """Why a folder isn't writable (empty if it is), and its free space in GiB."""
    created = [folder for folder in (run, *run.parents) if not folder.exists()]
    probe = run / f".doctor-{uuid.uuid4().hex}"
    try:
        run.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        free = shutil.disk_usage(run).free / 2**30
        probe.unlink()
        return "", free
    except OSError as error:
        return f"{run} can't be written ({error.strerror})", 0.0
    finally:
        for folder in created:
            with suppress(OSError):
                folder.rmdir()
