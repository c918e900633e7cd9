"""Speed of data loading, and how long training waits for data.

    python benchmarks/loading.py --json loading.json

Images per second of each loader alone, alternately, a few seconds each. All yield grey and colours in Lab on the
device, shuffled, with random flips:

- *resident*: held on the device, as all sources are that fit;
- *datasets*: read by row from Arrow files, with the best of several numbers of worker processes;
- *DataLoader*: usual practice, PIL on single files, with the best of the same numbers.

Then how fast images are saved, and the fraction of its time that training waits for data, with our loaders.
All files are in the page cache; from a disk, or over a network, many small files are slower.
"""

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable, Generator
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import torch
from harness import ROOT, Results, alternate, arguments, as_text, finish, load, open_trainer, ratio, summary, timed
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from colordist.color import ColorSpace
from colordist.data.batch import Share
from colordist.data.loader import Loader, ResidentLoader
from colordist.data.sampler import Sampler
from colordist.data.source import StreamedSplit
from colordist.data.sources.datasets import DatasetSettings, dataset
from colordist.data.streaming import StreamingLoader

LAB = ColorSpace("lab")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
Loading = Generator[int, None, None]
"""Yields the size of each batch loaded."""


class Files(Dataset[Tensor]):
    """One JPEG an image: uint8 [3, H, W]."""

    def __init__(self, root: Path) -> None:
        self.files = sorted(root.rglob("*.jpg"))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self.files[index]) as image:
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def write_images(root: Path, images: int, size: int) -> None:
    """JPEGs of smooth noise."""
    random = np.random.default_rng(0)
    for number in range(images):
        path = root / str(number % 10) / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        small.resize((size, size), Image.Resampling.BICUBIC).save(path)


def _ours(loader: Loader) -> Loading:
    try:
        for step in count():
            yield sum(map(len, loader.micro_batches(step)))
    finally:
        loader.close()


def resident(images: Tensor, batch: int) -> Loading:
    """Images held on the device: uint8 [N, 3, H, W]."""
    sampler = Sampler(0, len(images), batch, True)
    yield from _ours(ResidentLoader(images, Share(sampler, LAB, DEVICE, torch.float32, None, 0, 1)))


def streamed(split: StreamedSplit, batch: int, workers: int) -> Loading:
    """Images read on demand."""
    sampler = Sampler(0, len(split), batch, True)
    yield from _ours(StreamingLoader(split, Share(sampler, LAB, DEVICE, torch.float32, None, 0, 1), workers))


def opened(saved: Path, size: int) -> StreamedSplit:
    """Training split of a saved dataset."""
    source = dataset(DatasetSettings(source="datasets", root=str(saved), image_size=size))
    assert isinstance(source.train, StreamedSplit)
    return source.train


def save(root: Path, saved: Path) -> None:
    """Save a folder of images as the library datasets does."""
    from datasets import load_dataset

    load_dataset("imagefolder", data_dir=str(root), cache_dir=f"{saved}.cache").save_to_disk(saved)


def usual(root: Path, batch: int, workers: int) -> Loading:
    """Single files, by usual practice."""
    options = {"shuffle": True, "drop_last": True, "pin_memory": DEVICE.type == "cuda"}
    loader = DataLoader(Files(root), batch, num_workers=workers, persistent_workers=workers > 0, **options)
    while True:
        for rgb in loader:
            rgb = rgb.to(DEVICE, non_blocking=True)
            mirrored = torch.rand(len(rgb), 1, 1, 1, device=DEVICE) < 0.5
            LAB.split(torch.where(mirrored, rgb.flip(-1), rgb), torch.float32)
            yield len(rgb)


def speed(start: Callable[[], Loading], seconds: float) -> float:
    """Images per second, without the start of the workers."""
    batches = start()
    next(batches)
    begin, images = time.perf_counter(), 0
    while (passed := time.perf_counter() - begin) < seconds:
        images += next(batches)
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
    batches.close()
    return images / passed


def compare(root: Path, saved: Path, options: argparse.Namespace) -> Results:
    """All loaders alternately."""
    loaded = np.stack([Files(root)[index].numpy() for index in range(2000)])
    images = torch.from_numpy(loaded).contiguous().to(DEVICE)
    split = opened(saved, options.size)
    loaders: dict[str, Callable[[], Loading]] = {"resident": lambda: resident(images, options.batch)}
    for workers in options.workers:
        loaders[f"datasets, {workers}"] = partial(streamed, split, options.batch, workers)
        loaders[f"DataLoader, {workers}"] = partial(usual, root, options.batch, workers)
    arms = {name: partial(speed, each, options.seconds) for name, each in loaders.items()}
    speeds = alternate(arms, options.rounds, 0)
    ours, theirs = best(speeds, "datasets"), best(speeds, "DataLoader")
    return {
        "images_per_second": {name: summary(each) for name, each in speeds.items()},
        "best": {"datasets": ours, "DataLoader": theirs},
        "ratio": ratio(speeds, ours, theirs),
        "datasets / DataLoader": ratio(speeds, ours, theirs),
        "resident / DataLoader": ratio(speeds, "resident", theirs),
    }


def best(speeds: dict[str, list[float]], kind: str) -> str:
    """The loader of a kind with the highest median."""
    names = [name for name in speeds if name.startswith(kind)]
    return max(names, key=lambda name: summary(speeds[name])["median"])


def waiting(options: argparse.Namespace, **settings: object) -> dict[str, float]:
    """The fraction of its time that training waits for data: in blocks of five steps, without the first."""
    waits = []
    with open_trainer(load(options, {"data.image_size": options.size}, settings)) as trainer:
        for first in range(0, options.steps, 5):
            trainer.meter.restart_clock()
            seconds = timed(lambda first=first: [trainer.advance(first + each) for each in range(5)])  # type: ignore[misc]
            waits.append(trainer.meter.waited / seconds)
    return summary(waits[1:])


def main() -> None:
    parser = arguments(__doc__, 5)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=32, help="of the images, in pixels")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2, 4], help="numbers to try")
    parser.add_argument("--seconds", type=float, default=1.5, help="per loader and round")
    parser.add_argument("--steps", type=int, default=30, help="of training")
    parser.set_defaults(config=ROOT / "configs" / "cgan.yaml", set=[])
    options = parser.parse_args()
    warnings.filterwarnings("ignore", "This DataLoader will create")  # more workers than cores: intended
    with tempfile.TemporaryDirectory(prefix="loading-") as folder:
        root, saved = Path(folder) / "images", Path(folder) / "saved"
        write_images(root, options.images, options.size)
        saving = timed(lambda: save(root, saved))
        found = {"batch": options.batch, "size": options.size, "saved_per_second": options.images / saving}
        found |= compare(root, saved, options)
        found["waiting"] = {
            "resident": waiting(options),
            "datasets": waiting(options, **{"data.source": "datasets", "data.root": str(saved)}),
        }
    print(f"{'saving':16} {found['saved_per_second']:.0f} images per second")
    for name, each in found["images_per_second"].items():
        print(f"{name:16} {as_text(each, 0)} images per second")
    for name in ("resident", "datasets"):
        print(f"{name} / DataLoader, each at its best: {as_text(found[f'{name} / DataLoader'], 2)}")
    for name, each in found["waiting"].items():
        print(f"{name}: training waits for data {as_text(each, 2, 100)} % of its time")
    finish(options, found)


if __name__ == "__main__":
    main()
