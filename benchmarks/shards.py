"""Images in shards: a killed run that goes on on other processes; and how fast they are read, beside usual practice.

    python benchmarks/shards.py --json shards.json
    python benchmarks/shards.py --images 5000 --steps 100 --rounds 2

Makes small JPEGs and packs them. Then

- trains a small network on two processes; again, killed half way and continued on one; and compares what both have
  learned: the largest difference of any tensor, relative to its norm. In fp64, so that what differs is the order of
  sums, and without a discriminator, since a GAN doubles such differences again and again;
- reads images in turns, with as many worker processes: *shards* through our loader in the plan's order, *folder*
  through torch's DataLoader with PIL on single files, shuffled. Both end with grey and colours in Lab. The operating
  system keeps all files in memory; from a disk, or over a net, many small files are slower.
"""

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from colordist.color import ColorSpace
from colordist.data.loader import Share
from colordist.data.pack import pack
from colordist.data.plan import Plan
from colordist.data.shards import ShardSplit, shards
from colordist.data.streaming import StreamingLoader
from colordist.run_folder import RunFolder, numbered

SIDE = 32
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--num_machines", "1", "--mixed_precision", "no"]
LAUNCH += ["--dynamo_backend", "no", "--main_process_port", "0"]


def make(root: Path, images: int) -> None:
    """JPEGs of smooth noise in ten classes."""
    random = np.random.default_rng(0)
    for number in range(images):
        path = root / str(number % 10) / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        small.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(path)


# --- a kill


def begin(run: Path, root: Path, steps: int, processes: int) -> subprocess.Popen[str]:
    """Start, or continue, a training."""
    settings = {
        **{"task": "autoencoder", "run.dir": run, "data.source": "shards", "data.root": root, "train.steps": steps},
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
        **{"steps": steps, "killed_at": at, "processes": [2, 1], "tensors": len(one), "difference": difference},
        "waiting_for_data": spread(waited[1:]),
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


# --- how fast


class Files(Dataset[Tensor]):
    """Usual practice: one file an image."""

    def __init__(self, root: Path) -> None:
        self.files = sorted(root.rglob("*.jpg"))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self.files[index]) as image:
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def from_shards(root: Path, batch: int, workers: int) -> Iterator[int]:
    """Batches of our loader: how many images in each."""
    split = shards(str(root), None, SIDE, root).train
    assert isinstance(split, ShardSplit)
    plan = Plan(0, len(split), batch, True, shards=split.shard_sizes(), shuffle_shards=8)
    share = Share(plan, ColorSpace("lab"), torch.device("cpu"), torch.float32, None, 0, 1)
    loader = StreamingLoader(split, share, workers)
    try:
        for step in count():
            yield sum(map(len, loader.micro_batches(step)))
    finally:
        loader.close()


def from_folder(root: Path, batch: int, workers: int) -> Iterator[int]:
    """The same by usual practice."""
    color_space = ColorSpace("lab")
    loader = DataLoader(
        Files(root), batch, shuffle=True, num_workers=workers, drop_last=True, persistent_workers=workers > 0
    )
    while True:
        for rgb in loader:
            color_space.split(torch.where(torch.rand(len(rgb), 1, 1, 1) < 0.5, rgb.flip(-1), rgb), torch.float32)
            yield len(rgb)


def pace(batches: Iterator[int], seconds: float) -> float:
    """Images a second, without the start of the workers."""
    next(batches)
    begin, images = time.perf_counter(), 0
    while (passed := time.perf_counter() - begin) < seconds:
        images += next(batches)
    batches.close()  # type: ignore[attr-defined]
    return images / passed


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values)}


def compare(images: Path, root: Path, batch: int, workers: int, rounds: int) -> dict[str, Any]:
    """Both in turns, for a few seconds each."""
    ours, usual = [], []
    for _ in range(rounds):
        ours.append(pace(from_shards(root, batch, workers), 3))
        usual.append(pace(from_folder(images, batch, workers), 3))
    ratios = [one / other for one, other in zip(ours, usual, strict=True)]
    return {
        "batch": batch,
        "workers": workers,
        "shards": spread(ours),
        "folder": spread(usual),
        "ratio": spread(ratios),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--batch", type=int, default=64, help="for reading")
    parser.add_argument("--workers", type=int, default=2, help="for reading")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="shards-") as name:
        folder = Path(name)
        make(folder / "images", options.images)
        begun = time.perf_counter()
        index = pack(folder / "images", folder / "packed", 4 * 10**6)
        found: dict[str, Any] = {"images": options.images, "shards": len(index.shards)}
        found["packed_per_second"] = options.images / (time.perf_counter() - begun)
        begun = time.perf_counter()
        shards(str(folder / "packed"), None, SIDE, folder)
        found["seconds_to_open"] = time.perf_counter() - begun
        found["reading"] = compare(folder / "images", folder / "packed", options.batch, options.workers, options.rounds)
        found["ratio"] = found["reading"]["ratio"]
        found["killed"] = survive(folder, folder / "packed", options.steps)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found |= {"machine": f"{platform.machine()}, {cores} cores, torch {torch.__version__}", "load": os.getloadavg()[0]}
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    report(found)


def report(found: dict[str, Any]) -> None:
    packing = f"packed at {found['packed_per_second']:.0f} a second, opened in {found['seconds_to_open']:.3f} s"
    print(f"{found['images']:,} images in {found['shards']} shards: {packing}")
    reading, killed = found["reading"], found["killed"]
    for arm in ("shards", "folder"):
        print(f"{arm}: images a second {told(reading[arm], 0)}")
    print(f"shards / folder: {told(reading['ratio'], 2)}")
    print(f"killed at step {killed['killed_at']} of {killed['steps']} on 2 processes, continued on 1:", end=" ")
    print(f"largest relative difference of {killed['tensors']} tensors {killed['difference']:.1e}")
    print(f"share of the time that training waited for data: {told(killed['waiting_for_data'], 3)}")


def told(values: dict[str, float], digits: int) -> str:
    low, high = (f"{values[key]:.{digits}f}" for key in ("min", "max"))
    return f"{values['median']:.{digits}f} ({low} to {high}, n {values['n']})"


if __name__ == "__main__":
    main()
