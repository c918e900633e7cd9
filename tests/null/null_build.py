"""Building the null device, and the environment of processes that run on it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from helpers import ROOT, clean_environment

HERE = Path(__file__).parent
HEADERS = ("nvidia/*/include/cuda_runtime_api.h", "nvidia/*/include/nccl.h", "triton/backends/nvidia/include/cuda.h")
"""One of each folder that is searched for headers: in wheels that PyTorch's builds for CUDA depend on."""


def why_not() -> str | None:
    """Why the null device can't be built here; None if it can."""
    if shutil.which("gcc") is None:
        return "needs gcc"
    if not sys.platform.startswith("linux") or torch.version.cuda is None:
        return "needs a build of PyTorch for CUDA"
    missing = [header for header in HEADERS if _find(header) is None]
    return f"needs {', '.join(missing)}" if missing else None


def build(folder: Path) -> Path:
    """Compile it. Returns the library, in a folder that exists."""
    includes = [f"-I{header.parent}" for header in map(_find, HEADERS) if header is not None]
    library = folder / "libnull.so"
    flags = ["-shared", "-fPIC", "-O1", "-fvisibility=hidden", "-Wall", "-Wl,-soname,libcuda.so.1", "-pthread"]
    sources = sorted(str(path) for path in (HERE / "device").glob("*.c"))
    subprocess.run(["gcc", *flags, *includes, "-o", str(library), *sources], check=True)
    return library


def environment(library: Path, devices: int = 1, **more: str) -> dict[str, str]:
    """The environment of a process that sees a number of null devices."""
    found = clean_environment() | {
        "LD_PRELOAD": str(library),
        "NULL_DEVICES": str(devices),
        "OMP_NUM_THREADS": "1",
        "TORCH_CPP_LOG_LEVEL": "FATAL",  # as colordist sets it: read when torch is imported, which is earlier here
        # Each allocation is one of the null device, whose memory is zero: so what is read from it doesn't vary.
        "PYTORCH_NO_CUDA_MEMORY_CACHING": "1",
    }
    found["PYTHONPATH"] = os.pathsep.join([str(HERE), str(ROOT / "benchmarks"), found["PYTHONPATH"]])
    return found | more


def _find(header: str) -> Path | None:
    """A header, by its pattern below the folder of installed packages."""
    return next(Path(torch.__file__).parents[1].glob(header), None)
