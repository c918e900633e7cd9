"""Images in shards: a killed run that goes on on another number of processes.

    python benchmarks/shards.py --json shards.json
    python benchmarks/shards.py --images 5000 --steps 100

Makes small JPEGs and packs them. Then trains a small network on two processes; again, killed half way and continued on
one; and compares what both have learned: the largest difference of any tensor, relative to its norm. In fp64, so that
what differs is the order of sums, and without a discriminator, since a GAN doubles such differences again and again.
loading.py tells how fast shards are read.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import torch
from loading import make
from measuring import hardware, summary, told
from torch import Tensor

from colordist.data.pack import pack
from colordist.data.sources.shards import shards
from colordist.run.folder import RunFolder, numbered

SIDE = 32
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--num_machines", "1", "--mixed_precision", "no"]
LAUNCH += ["--dynamo_backend", "no", "--main_process_port", "0"]


# --- a kill


def begin(run: Path, root: Path, steps: int, processes: int) -> subprocess.Popen[str]:
    """Start, or continue, a training."""
    settings = {
        **{
            "task.name": "autoencoder",
            "run.dir": run,
            "data.source": "shards",
            "data.root": root,
            "train.steps": steps,
        },
        **{"model.width": 4, "train.global_batch_size": 32, "train.precision": "fp64"},
        **{"log.every": 5, "checkpoint.every": max(1, steps // 5), "evaluate.every": steps},
    }
    command = [*LAUNCH, "--num_processes", str(processes), *(["--multi_gpu"] if processes > 1 else [])]
    command += ["-m", "colordist.train", *(f"--{key}={value}" for key, value in settings.items())]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def end(process: subprocess.Popen[str]) -> None:
    _, told = process.communicate()
    if process.returncode:
        raise SystemExit(f"a training failed: {told}")


def kill_after(process: subprocess.Popen[str], run: Path, step: int) -> int:
    """Kill a training and all its processes at a step. Returns the step that it had told last."""
    folder = RunFolder(run)
    while not folder.metrics_file.exists() or not (told := folder.records()) or told[-1]["step"] < step:
        if process.poll() is not None:
            raise SystemExit(f"a training ended before it was killed: {process.communicate()[1]}")
        time.sleep(0.01)
    for each in psutil.Process(process.pid).children(recursive=True):
        each.send_signal(signal.SIGKILL)
    process.communicate()
    return int(folder.records()[-1]["step"])


def survive(folder: Path, root: Path, steps: int) -> dict[str, Any]:
    """Train straight, and killed and continued on another number of processes."""
    straight, killed = folder / "straight", folder / "killed"
    end(begin(straight, root, steps, processes=2))
    at = kill_after(begin(killed, root, steps, processes=2), killed, steps // 2)
    end(begin(killed, root, steps, processes=1))
    one, other = (learned(run) for run in (straight, killed))
    difference = max(
        float((other[name] - value).norm() / value.norm().clamp(min=1e-300)) for name, value in one.items()
    )
    waited = [line["waiting_for_data"] for line in RunFolder(straight).records() if "waiting_for_data" in line]
    return {
        **{
            "steps": steps,
            "killed_at": at,
            "processes": [2, 1],
            "tensors": len(one),
            "gradient_difference": difference,
        },
        "waiting_for_data": summary(waited[1:]),
    }


def learned(run: Path) -> dict[str, Tensor]:
    """Weights, optimizer states and averages of the last checkpoint."""
    state = torch.load(numbered(RunFolder(run).checkpoints)[-1] / "state.pt", weights_only=True)
    return tensors(state["networks"])


def tensors(state: object, name: str = "") -> dict[str, Tensor]:
    if isinstance(state, Tensor):
        return {name: state.double()}
    parts = state.items() if isinstance(state, dict) else ()
    return {path: value for key, part in parts for path, value in tensors(part, f"{name}/{key}").items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="shards-") as name:
        folder = Path(name)
        make(folder / "images", options.images, SIDE)
        begun = time.perf_counter()
        index = pack(folder / "images", folder / "packed", 4 * 10**6)
        found: dict[str, Any] = {"images": options.images, "shards": len(index.shards)}
        found["packed_per_second"] = options.images / (time.perf_counter() - begun)
        begun = time.perf_counter()
        shards(str(folder / "packed"), None, SIDE, folder)
        found["seconds_to_open"] = time.perf_counter() - begun
        found["killed"] = survive(folder, folder / "packed", options.steps)
    found |= {"hardware": hardware(), "load": os.getloadavg()[0]}
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    report(found)


def report(found: dict[str, Any]) -> None:
    packing = f"packed at {found['packed_per_second']:.0f} a second, opened in {found['seconds_to_open']:.3f} s"
    print(f"{found['images']:,} images in {found['shards']} shards: {packing}")
    killed = found["killed"]
    print(f"killed at step {killed['killed_at']} of {killed['steps']} on 2 processes, continued on 1:", end=" ")
    print(f"largest relative difference of {killed['tensors']} tensors {killed['difference']:.1e}")
    print(f"share of the time that training waited for data: {told(killed['waiting_for_data'])}")


if __name__ == "__main__":
    main()
