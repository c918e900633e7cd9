"""How fast images come, and how long training waits for them.

    python benchmarks/loading.py --json loading.json

Images a second of each way alone, in turns, a few seconds each, all ending with grey and colours in Lab on the device,
in the order of a shuffle, half of them mirrored:

- *resident*: held on the device, as all sources but ``shards`` are;
- *shards*: read by index, in the best of several numbers of worker processes;
- *DataLoader*: usual practice, PIL on single files, in the best of the same numbers.

Then how fast shards are packed, and the share of the time that training waits for data, with each of our two ways. The
operating system keeps all files in memory; from a disk, or over a net, many small files are slower.
"""

import argparse
import contextlib
import io
import tempfile
import time
import warnings
from collections.abc import Callable, Generator
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import torch
from harness import ROOT, Found, arguments, finish, in_turns, ratio, read, summary, timed, told, trainer
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from colordist.color import ColorSpace
from colordist.data.loader import Loader, ResidentLoader, Share
from colordist.data.pack import pack
from colordist.data.sampler import Sampler
from colordist.data.sources.shards import ShardSplit, shards
from colordist.data.streaming import StreamingLoader

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


def compare(root: Path, packed: Path, options: argparse.Namespace) -> Found:
    """All ways in turns."""
    loaded = np.stack([Files(root)[index].numpy() for index in range(2000)])
    images = torch.from_numpy(loaded).contiguous().to(DEVICE)
    ways: dict[str, Way] = {"resident": lambda: resident(images, options.batch)}
    for workers in options.workers:
        ways[f"shards, {workers}"] = partial(streamed, packed, options.size, options.batch, workers)
        ways[f"DataLoader, {workers}"] = partial(usual, root, options.batch, workers)
    paces = in_turns({name: partial(pace, way, options.seconds) for name, way in ways.items()}, options.rounds, 0)
    ours, theirs = best(paces, "shards"), best(paces, "DataLoader")
    return {
        "images_per_second": {name: summary(each) for name, each in paces.items()},
        "best": {"shards": ours, "DataLoader": theirs},
        "ratio": ratio(paces, ours, theirs),
        "shards / DataLoader": ratio(paces, ours, theirs),
        "resident / DataLoader": ratio(paces, "resident", theirs),
    }


def best(paces: dict[str, list[float]], kind: str) -> str:
    """The setting of a kind whose median is highest."""
    names = [name for name in paces if name.startswith(kind)]
    return max(names, key=lambda name: summary(paces[name])["median"])


def waiting(options: argparse.Namespace, **settings: object) -> dict[str, float]:
    """The share of its time that training waits for data, line by line of the log, but the first."""
    config = read(options, {"log.every": 5, "data.image_size": options.size}, settings)
    with contextlib.redirect_stdout(io.StringIO()), trainer(config) as training:
        assert training.trainer is not None
        training.trainer.meter.restart_clock()
        for step in range(options.steps):
            training.advance(step)
        records = training.trainer.folder.records()
    return summary([line["waiting_for_data"] for line in records if "waiting_for_data" in line][1:])


def main() -> None:
    parser = arguments(__doc__, 5)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=32, help="of the images, in pixels")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2, 4], help="numbers to try")
    parser.add_argument("--seconds", type=float, default=1.5, help="of each way and round")
    parser.add_argument("--steps", type=int, default=30, help="of training")
    parser.set_defaults(config=ROOT / "configs" / "cgan.yaml", set=[])
    options = parser.parse_args()
    warnings.filterwarnings("ignore", "This DataLoader will create")  # more workers than cores: that's to be seen
    with tempfile.TemporaryDirectory(prefix="loading-") as name:
        root, packed = Path(name) / "images", Path(name) / "packed"
        make(root, options.images, options.size)
        packing = timed(lambda: pack(root, packed, 4 * 10**6))
        found = {"batch": options.batch, "size": options.size, "packed_per_second": options.images / packing}
        found |= compare(root, packed, options)
        found["waiting"] = {
            "resident": waiting(options),
            "shards": waiting(options, **{"data.source": "shards", "data.root": str(packed)}),
        }
    print(f"{'packing':16} {found['packed_per_second']:.0f} images a second")
    for way, each in found["images_per_second"].items():
        print(f"{way:16} {told(each, 0)} images a second")
    for way in ("resident", "shards"):
        print(f"{way} / DataLoader, each at its best: {told(found[f'{way} / DataLoader'], 2)}")
    for way, each in found["waiting"].items():
        print(f"{way}: training waits for data {told(each, 2, 100)} % of its time")
    finish(options, found)


if __name__ == "__main__":
    main()
