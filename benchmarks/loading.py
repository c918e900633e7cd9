"""How fast images come, and how long training waits for them.

    python benchmarks/loading.py --json loading.json

Images a second of each way alone, in turns, a few seconds each, all ending with grey and colours in Lab on the device,
in the order of a shuffle, half of them mirrored:

- *resident*: held on the device, as all sources but ``shards`` are;
- *shards*: read by index, in the best of several numbers of worker processes;
- *DataLoader*: usual practice, PIL on single files, in the best of the same numbers.

Then the share of the time that training waits for data, with each of our two ways. The operating system keeps all files
in memory; from a disk, or over a net, many small files are slower.
"""

import argparse
import contextlib
import io
import json
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Generator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import hardware, summary, told
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from colordist.cli import parse
from colordist.color import ColorSpace
from colordist.data.loader import Loader, ResidentLoader, Share
from colordist.data.pack import pack
from colordist.data.sampler import Sampler
from colordist.data.sources.shards import ShardSplit, shards
from colordist.data.streaming import StreamingLoader
from colordist.run.folder import RunFolder
from colordist.training.build import build_trainer

ROOT = Path(__file__).parents[1]
LAB = ColorSpace("lab")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
Way = Callable[[], Generator[int, None, None]]
"""Begins to load: how many images are in each batch."""


class Files(Dataset[Tensor]):
    """One JPEG an image: uint8 [3, H, W]."""

    def __init__(self, root: Path) -> None:
        self.files = sorted(root.rglob("*.jpg"))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self.files[index]) as image:
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def make(root: Path, images: int, size: int) -> None:
    """JPEGs of smooth noise."""
    random = np.random.default_rng(0)
    for number in range(images):
        path = root / str(number % 10) / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        small.resize((size, size), Image.Resampling.BICUBIC).save(path)


def _ours(loader: Loader) -> Generator[int, None, None]:
    try:
        for step in count():
            yield sum(map(len, loader.micro_batches(step)))
    finally:
        loader.close()


def resident(images: Tensor, batch: int) -> Generator[int, None, None]:
    """From the device. images: uint8 [N, 3, H, W] there."""
    sampler = Sampler(0, len(images), batch, True)
    yield from _ours(ResidentLoader(images, Share(sampler, LAB, DEVICE, torch.float32, None, 0, 1)))


def streamed(packed: Path, size: int, batch: int, workers: int) -> Generator[int, None, None]:
    """From shards."""
    split = shards(str(packed), None, size, packed).train
    assert isinstance(split, ShardSplit)
    sampler = Sampler(0, len(split), batch, True, shards=split.shard_sizes(), shuffle_shards=8)
    yield from _ours(StreamingLoader(split, Share(sampler, LAB, DEVICE, torch.float32, None, 0, 1), workers))


def usual(root: Path, batch: int, workers: int) -> Generator[int, None, None]:
    """From files, by usual practice."""
    loader = DataLoader(
        Files(root),
        batch,
        shuffle=True,
        num_workers=workers,
        drop_last=True,
        persistent_workers=workers > 0,
        pin_memory=DEVICE.type == "cuda",
    )
    while True:
        for rgb in loader:
            there = rgb.to(DEVICE, non_blocking=True)
            mirrored = torch.rand(len(rgb), 1, 1, 1, device=DEVICE) < 0.5
            LAB.split(torch.where(mirrored, there.flip(-1), there), torch.float32)
            yield len(rgb)


def pace(way: Way, seconds: float) -> float:
    """Images a second, without the start of the workers."""
    batches = way()
    next(batches)
    begin, images = time.perf_counter(), 0
    while (passed := time.perf_counter() - begin) < seconds:
        images += next(batches)
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
    batches.close()
    return images / passed


def compare(root: Path, packed: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All ways in turns."""
    loaded = np.stack([Files(root)[index].numpy() for index in range(2000)])
    images = torch.from_numpy(loaded).contiguous().to(DEVICE)
    ways: dict[str, Way] = {"resident": lambda: resident(images, options.batch)}
    for workers in options.workers:
        ways[f"shards, {workers}"] = lambda workers=workers: streamed(packed, options.size, options.batch, workers)
        ways[f"DataLoader, {workers}"] = lambda workers=workers: usual(root, options.batch, workers)
    paces: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(options.rounds):
        for name in list(ways) if turn % 2 else reversed(list(ways)):
            paces[name].append(pace(ways[name], options.seconds))
    ours, theirs = best(paces, "shards"), best(paces, "DataLoader")
    found: dict[str, Any] = {"images_per_second": {name: summary(each) for name, each in paces.items()}}
    found["best"] = {"shards": ours, "DataLoader": theirs}
    for name, one in (("shards", ours), ("resident", "resident")):
        ratios = [ours / theirs for ours, theirs in zip(paces[one], paces[theirs], strict=True)]
        found[f"{name} / DataLoader"] = summary(ratios)
    return found


def best(paces: dict[str, list[float]], kind: str) -> str:
    """The setting of a kind whose median is highest."""
    names = [name for name in paces if name.startswith(kind)]
    return max(names, key=lambda name: summary(paces[name])["median"])


def waiting(settings: Sequence[str], steps: int) -> dict[str, float]:
    """The share of its time that training waits for data, line by line of the log, but the first."""
    given = ["loss.warmup_steps=0", "log.every=5", "evaluate.every=1000000000", "checkpoint.every=1000000000"]
    config = parse(["--config", str(ROOT / "configs" / "cgan.yaml"), *(f"--{each}" for each in [*given, *settings])])
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        run = RunFolder(Path(folder) / "run")
        trainer = build_trainer(config.config, run)
        trainer.begin()
        trainer.meter.restart_clock()
        for step in range(steps):
            trainer.advance(step)
        trainer.close()
        shares = [line["waiting_for_data"] for line in run.records() if "waiting_for_data" in line]
    return summary(shares[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=32, help="of the images, in pixels")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2, 4], help="numbers to try")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each way and round")
    parser.add_argument("--steps", type=int, default=30, help="of training")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", "This DataLoader will create")  # more workers than cores: that's to be seen
    found: dict[str, Any] = {"hardware": hardware(), "batch": options.batch, "size": options.size}
    print(found["hardware"])
    with tempfile.TemporaryDirectory(prefix="loading-") as name:
        folder = Path(name)
        make(folder / "images", options.images, options.size)
        pack(folder / "images", folder / "packed", 4 * 10**6)
        found |= compare(folder / "images", folder / "packed", options)
        of_shards = ["data.source=shards", f"data.root={folder / 'packed'}", "data.classes=all"]
        found["waiting"] = {
            "resident": waiting(["data.source=synthetic", "data.train_images=500", "data.classes=all"], options.steps),
            "shards": waiting([*of_shards, f"data.image_size={options.size}"], options.steps),
        }
    found["load"] = os.getloadavg()[0]
    for name, each in found["images_per_second"].items():
        print(f"{name:16} {told(each, 0)} images a second")
    for name in ("resident", "shards"):
        print(f"{name} / DataLoader, each at its best: {told(found[f'{name} / DataLoader'], 2)}")
    for name, each in found["waiting"].items():
        print(f"{name}: training waits for data {told(each, 2, 100)} % of its time")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
