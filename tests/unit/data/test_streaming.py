"""Images read ahead by worker processes: the plan's, however many there are; and none of them is left behind."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import torch
from helpers import ROOT, alone_on_the_cpu
from packed import SIDE, packed
from runs import assert_bit_equal, killed_run, learned, run

from colordist.color import ColorSpace
from colordist.config import RunError
from colordist.data.batch import Batch, Share
from colordist.data.crops import crop
from colordist.data.decode import Scaling
from colordist.data.loader import ResidentLoader, load
from colordist.data.sampler import Sampler
from colordist.data.sources.shard_index import Index
from colordist.data.sources.shards import ShardSplit, shards
from colordist.data.streaming import StreamingLoader

CPU = torch.device("cpu")
BATCH = 6


@pytest.fixture(scope="module")
def shard_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packed(tmp_path_factory.mktemp("shards"))[0]


def split_of(shard_store: Path) -> ShardSplit:
    split = shards(str(shard_store), None, Scaling(SIDE), shard_store).train
    assert isinstance(split, ShardSplit)
    return split


def share_of(
    split: ShardSplit, *, unpaired: bool = False, micro: int | None = None, rank: int = 0, of: int = 1
) -> Share:
    sampler = Sampler(4, len(split), BATCH, True, shards=split.shard_sizes(), shuffle_shards=2, unpaired=unpaired)
    return Share(sampler, ColorSpace("lab"), CPU, torch.float64, micro, rank, of)


def assert_equal(found: list[Batch], expected: list[Batch]) -> None:
    for one, other in zip(found, expected, strict=True):
        for name, value in vars(other).items():
            assert torch.equal(getattr(one, name), value), name


@pytest.mark.parametrize("unpaired", [False, True])
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_the_same_batches_as_from_memory(workers: int, unpaired: bool, shard_store: Path) -> None:
    split = split_of(shard_store)
    share = share_of(split, unpaired=unpaired, micro=2, rank=1, of=2)
    resident, streaming = ResidentLoader(load(split, CPU), share), StreamingLoader(split, share, workers)
    # A run begins by looking at its first step twice; from 40 on it was continued.
    for step in (0, 0, 1, 2, 3, 4, 5, 40, 40, 41, 7, 6):
        assert_equal(streaming.micro_batches(step), resident.micro_batches(step))
    streaming.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_random_crops_of_shards(workers: int, shard_store: Path) -> None:
    split = shards(str(shard_store), None, Scaling(SIDE, 20, whole=True), shard_store).train
    assert isinstance(split, ShardSplit)
    sampler = Sampler(4, len(split), BATCH, True, shards=split.shard_sizes(), shuffle_shards=2, random_crops=True)
    share = Share(sampler, ColorSpace("rgb"), CPU, torch.float64, None, 0, 1)
    streaming = StreamingLoader(split, share, workers)
    for step in range(3):
        (batch,), part = streaming.micro_batches(step), sampler.step(step)
        for index, position, flip, target in zip(part.index, part.crop, part.flip, batch.target, strict=True):
            image = split.read(int(index))
            assert image is not None
            assert image.shape == (20, 25, 3)
            square = crop(image, SIDE, position)[:, :: -1 if flip else 1].copy()
            assert torch.equal(((target + 1) * 127.5).round().byte(), torch.from_numpy(square).permute(2, 0, 1))
    assert split.placeholder().shape == split[0].shape == (SIDE, SIDE, 3)
    streaming.close()


def test_the_sample_is_the_first_images(shard_store: Path) -> None:
    split = split_of(shard_store)
    streaming = StreamingLoader(split, share_of(split), 2)
    assert torch.equal(torch.cat(list(streaming.sample())), load(split, CPU))
    assert streaming.digest == split.digest


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


def test_workers_end_when_the_loader_is_closed(shard_store: Path) -> None:
    split, before = split_of(shard_store), children()
    streaming = StreamingLoader(split, share_of(split), 2)
    streaming.micro_batches(0)
    assert len(children() - before) == 2
    streaming.micro_batches(5)  # anew
    assert len(children() - before) == 2
    streaming.close()
    assert children() <= before
    streaming.close()


def test_damaged_images_are_told_by_the_trainer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder, index = packed(tmp_path)
    shard = index.shards[0]
    with (folder / shard.name).open("r+b") as file:
        file.seek(shard.offsets[1])
        file.write(bytes(shard.sizes[1]))
    split = split_of(folder)
    streaming = StreamingLoader(split, share_of(split), 2)
    epochs = 3
    caplog.set_level(logging.WARNING)
    seen = [batch.target for step in range(epochs * -(-26 // BATCH)) for batch in streaming.micro_batches(step)]
    streaming.close()
    (told,) = [record.getMessage() for record in caplog.records]
    assert told == f"{shard.keys[1]} in {shard.name} can't be decoded, and is replaced by grey"
    assert split.damaged == {1}
    # a,b of a grey are 0 to the fourth digit.
    assert epochs <= sum(bool(target.abs().max() < 1e-3) for target in torch.cat(seen)) <= epochs + 1


def test_a_failing_shard_ends_the_run_in_one_line(tmp_path: Path) -> None:
    folder, index = packed(tmp_path)
    split = split_of(folder)
    for shard in index.shards:
        (folder / shard.name).write_bytes(b"")
    streaming = StreamingLoader(split, share_of(split), 1)
    with pytest.raises(RunError, match="is truncated") as caught:
        streaming.micro_batches(0)
    assert "\n" not in str(caught.value)
    streaming.close()


# --- signals

CHILD = """
import sys, psutil
from pathlib import Path
sys.path.append(sys.argv[2])
from test_streaming import share_of, split_of
from colordist.data.streaming import StreamingLoader
if __name__ == "__main__":
    split = split_of(Path(sys.argv[1]))
    loader = StreamingLoader(split, share_of(split), 2)
    loader.micro_batches(0)
    print(*[child.pid for child in psutil.Process().children()], flush=True)
    for line in sys.stdin:
        print(len(loader.micro_batches(int(line))[0]), flush=True)
    loader.close()
"""


@pytest.fixture
def child(shard_store: Path) -> Iterator[subprocess.Popen[str]]:
    """A process with two workers, which answers to numbers of steps."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "unit")])}
    command = [sys.executable, "-c", CHILD, str(shard_store), str(Path(__file__).parent)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        yield process
        process.kill()


def workers_of(child: subprocess.Popen[str]) -> list[psutil.Process]:
    assert child.stdout is not None
    return [psutil.Process(int(pid)) for pid in child.stdout.readline().split()]


def wait_until(event: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not event():
        assert time.monotonic() < deadline, "it hasn't happened"
        time.sleep(0.005)


@pytest.mark.skipif(sys.platform != "linux", reason="signals tell their sender on Linux")
def test_what_asks_the_training_to_stop_leaves_its_workers_at_work(child: subprocess.Popen[str]) -> None:
    workers = workers_of(child)
    assert len(workers) == 2
    for worker in workers:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            worker.send_signal(number)
    assert child.stdin is not None
    assert child.stdout is not None
    for step in range(1, 30):  # more than was decoded ahead
        print(step, file=child.stdin, flush=True)
        assert child.stdout.readline() == f"{BATCH}\n"
    child.stdin.close()
    assert child.wait(60) == 0
    assert not any(worker.is_running() for worker in workers)


@pytest.mark.skipif(sys.platform != "linux", reason="a worker is told of its parent's death on Linux")
def test_a_killed_process_leaves_no_workers(child: subprocess.Popen[str]) -> None:
    workers = workers_of(child)
    assert len(workers) == 2
    child.kill()
    wait_until(lambda: not any(worker.is_running() and worker.status() != "zombie" for worker in workers))


# --- whole runs


@pytest.mark.parametrize("task", ["cgan", "cyclegan"])
def test_a_run_killed_and_continued_with_other_workers(
    task: str, shard_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"task.name": task, "data__source": "shards", "data__root": str(shard_store), "data__image_size": SIDE}
    with alone_on_the_cpu(monkeypatch):
        straight = run(tmp_path / "straight", data__workers=0, **settings)
        killed = killed_run(tmp_path / "killed", monkeypatch, at=4, data__workers=2, **settings)
        run(tmp_path / "killed", data__workers=1, **settings)
    assert learned(killed) == learned(straight)
    assert_bit_equal(killed, straight)
    assert (killed.path / "images").read_text().split()[0] == split_of(shard_store).digest


def test_packed_anew_it_is_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, index = packed(tmp_path)
    settings = {"data__source": "shards", "data__root": str(folder), "data__image_size": SIDE, "data__workers": 0}
    with alone_on_the_cpu(monkeypatch):
        run(tmp_path / "run", **settings)
        (folder / "index.json").write_text(Index(index.classes, index.shards[::-1]).text())
        with pytest.raises(Exception, match="the images have changed since"):
            run(tmp_path / "run", train__steps=8, **settings)


def test_a_run_scored_on_shards(shard_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same floors and scores as of the packed folder: the test split has its order."""
    settings = {"data__image_size": SIDE, "train__steps": 1}
    found = {}
    with alone_on_the_cpu(monkeypatch):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        for source, root in ("shards", shard_store), ("folder", shard_store.with_name("images")):
            records = run(tmp_path / source, data__source=source, data__root=str(root), **settings).records()
            found[source] = records[:2]
    assert found["shards"] == found["folder"]
    assert found["shards"][0]["reference/constant/mae"] > 0
