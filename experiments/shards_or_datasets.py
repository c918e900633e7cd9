"""Side by side: the sources ``shards`` and ``datasets`` on the same images.

    python experiments/shards_or_datasets.py --photos DIR --json sources.json

50,000 and 1,000,000 JPEGs of 32x32 pixels, and a folder of photographs, each as shards and as a saved dataset. Each
measurement is in a process of its own, alternately A B B A, with the page cache as it is (warm), or with the files'
pages dropped before (cold): seconds to open, seconds to the first batch, images per second with two workers, memory
(PSS) of the training process and of its workers, and bytes read from the disk.
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from colordist.data.sources.shard_index import NAME, Index, Shard

SOURCES = ("shards", "datasets")
PER_SHARD = 20_000  # tiny images


def tiny_images(count: int) -> Iterator[bytes]:
    """JPEGs of smooth noise, 32x32; after a thousand the same ones again."""
    random, found = np.random.default_rng(0), []
    for number in range(count):
        if number < 1000:
            buffer = io.BytesIO()
            small = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
            small.resize((32, 32), Image.Resampling.BICUBIC).save(buffer, "JPEG")
            found.append(buffer.getvalue())
        yield found[number % 1000]


def write_shards(out: Path, count: int) -> None:
    """As ``colordist.data.pack`` would, without files to read."""
    index, shard, tar = Index([], []), Shard("train", ""), None
    out.mkdir()
    images = [("train", content) for content in tiny_images(count)] + [("test", each) for each in tiny_images(100)]
    for number, (split, content) in enumerate(images):
        if tar is None or len(shard.keys) == PER_SHARD or split != shard.split:
            if tar is not None:
                close(out, tar, shard)
            shard = Shard(split, f"{split}-{len(index.shards):06d}.tar", sha256="0" * 64)  # type: ignore[arg-type]
            index.shards.append(shard)
            tar = tarfile.open(out / shard.name, "w")  # noqa: SIM115
        member = tarfile.TarInfo(f"{number}.jpg")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
        shard.keys.append(member.name)
        shard.offsets.append(tar.offset - -(-len(content) // 512) * 512)
        shard.sizes.append(len(content))
    assert tar is not None
    close(out, tar, shard)
    (out / NAME).write_text(index.text())


def close(out: Path, tar: tarfile.TarFile, shard: Shard) -> None:
    """Close a shard, and note its size."""
    tar.close()
    shard.bytes = (out / shard.name).stat().st_size


def write_dataset(out: Path, cache: Path, count: int) -> None:
    """The same images as a saved dataset."""
    from datasets import Dataset, DatasetDict, Features
    from datasets import Image as ImageType

    def rows(count: int) -> Iterator[dict[str, object]]:
        for number, content in enumerate(tiny_images(count)):
            yield {"image": {"bytes": content, "path": f"{number}.jpg"}}

    features = Features({"image": ImageType()})
    DatasetDict(
        {
            split: Dataset.from_generator(rows, features=features, cache_dir=str(cache), gen_kwargs={"count": each})
            for split, each in (("train", count), ("test", 100))
        }
    ).save_to_disk(out)


def drop_pages(root: Path) -> None:
    """Drop the files' pages from the page cache."""
    for file in root.rglob("*"):
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


# --- in a process of its own


def measure(source: str, root: str, size: int, seconds: float, reads: int) -> dict[str, float]:
    """Open a source and load batches of 64 for some seconds; or only read so many images, in the sampler's order."""
    import torch

    from colordist.color import ColorSpace
    from colordist.data.batch import Share
    from colordist.data.sampler import Sampler
    from colordist.data.streaming import StreamingLoader
    from colordist.registry import component, make_config

    torch.set_num_threads(1)
    settings = {"source": source.partition("-")[0], "root": root, "image_size": size}
    begin = time.perf_counter()
    split = component("source", settings["source"])(make_config({"data": settings}).data).open().train
    found = {"open": time.perf_counter() - begin}
    shards, shuffled = split.shard_sizes(), 10**6 if source.endswith("full") else 8
    sampler = Sampler(time.time_ns(), len(split), 64, True, shards=shards, shuffle_shards=shuffled)
    if reads:
        order = np.concatenate([sampler.step(step).index for step in range(reads // 64)]).tolist()
        before, begin = from_disk(), time.perf_counter()
        wanted = sum(len(split.content(index)) for index in order)
        found["reads_per_second"] = len(order) / (time.perf_counter() - begin)
        return found | {"read / wanted": (from_disk() - before) / wanted}
    share = Share(sampler, ColorSpace("lab"), torch.device("cpu"), torch.float32, None, 0, 1)
    loader, begin = StreamingLoader(split, share, 2), time.perf_counter()
    loader.micro_batches(0)
    found["first_batch"] = time.perf_counter() - begin
    begin, step = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        loader.micro_batches(step := step + 1)
    found["images_per_second"] = 64 * step / (time.perf_counter() - begin)
    found["pss_training"] = pss(os.getpid())
    workers = [pss(child.pid) for child in __import__("psutil").Process().children()]
    loader.close()
    return found | {"pss_worker": statistics.mean(workers)}


def pss(process: int) -> float:
    """Proportional set size of a process in MB."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1000


def from_disk() -> int:
    """Bytes that this process has read from disks."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


# --- alternately


def alone(source: str, root: Path, cold: bool, options: list[str]) -> dict[str, float]:
    """Measure in a process of its own."""
    if cold:
        drop_pages(root)
    command = [sys.executable, __file__, "--measure", source, str(root), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def compared(name: str, roots: dict[str, Path], rounds: int, cold: bool, options: list[str]) -> dict[str, object]:
    """Median and range of each number of each source, and of the ratios datasets / shards."""
    found: dict[str, list[dict[str, float]]] = {source: [] for source in roots}
    for number in range(rounds):
        for source in list(roots) if number % 2 else reversed(list(roots)):
            found[source].append(alone(source, roots[source], cold, options))
    result: dict[str, object] = {}
    for key in found["shards"][0]:
        columns = {source: [each[key] for each in rows] for source, rows in found.items()}
        pairs = zip(columns["datasets"], columns["shards"], strict=True)
        columns["datasets / shards"] = [one / other for one, other in pairs if other]
        result[key] = {
            each: [statistics.median(values), min(values), max(values), len(values)] if values else None
            for each, values in columns.items()
        }
        print(name, "cold" if cold else "warm", key, json.dumps(result[key]), flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", nargs=2, metavar=("SOURCE", "ROOT"), help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--reads", type=int, default=0)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--keep", type=Path, help="folder to keep the images in")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(*options.measure, options.size, options.seconds, options.reads)))
        return
    with tempfile.TemporaryDirectory(prefix="sources-") as scratch:
        found = compare_all(options.keep or Path(scratch), options)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


def compare_all(folder: Path, options: argparse.Namespace) -> dict[str, object]:
    """Make what isn't there, and compare."""
    found: dict[str, object] = {}
    for name, count in (("50k", 50_000), ("1M", 1_000_000)):
        roots = {source: folder / f"{name}-{source}" for source in SOURCES}
        if not roots["shards"].exists():
            write_shards(roots["shards"], count)
        if not roots["datasets"].exists():
            write_dataset(roots["datasets"], folder / "cache", count)
        for cold in (False, True):
            found[f"{name}, cold {cold}"] = compared(name, roots, options.rounds, cold, [])
    if options.photos:
        found |= compare_photos(folder, options)
    return found


def compare_photos(folder: Path, options: argparse.Namespace) -> dict[str, object]:
    """The same for a folder of photographs, at 64x64."""
    from datasets import load_dataset

    from colordist.data.pack import pack

    roots, took = {source: folder / f"photos-{source}" for source in SOURCES}, {}
    if not roots["datasets"].exists():
        begin = time.perf_counter()
        pack(options.photos, roots["shards"])
        took["shards"] = time.perf_counter() - begin
        begin = time.perf_counter()
        cache = str(folder / "cache")
        load_dataset("imagefolder", data_dir=str(options.photos), cache_dir=cache).save_to_disk(roots["datasets"])
        took["datasets"] = time.perf_counter() - begin
        print("photos, seconds to pack or save", took)
    return {"photos, seconds to pack or save": took} | {
        f"photos, cold {cold}": compared("photos", roots, options.rounds, cold, ["--size", "64"])
        for cold in (False, True)
    }


if __name__ == "__main__":
    main()
