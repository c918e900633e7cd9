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
from helpers import ROOT
from small_images import SIDE, images

from colordist.color import ColorSpace
from colordist.data.batch import Share
from colordist.data.decode import Scaling
from colordist.data.sampler import Sampler
from colordist.data.source import StreamedSplit
from colordist.data.sources.folder import folder
from colordist.data.streaming import StreamingLoader

CPU = torch.device("cpu")
BATCH = 6


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return images(tmp_path_factory.mktemp("images"))


def split_of(root: Path) -> StreamedSplit:
    split = folder(root, None, Scaling(SIDE), None, max_memory=0).train
    assert isinstance(split, StreamedSplit)
    return split


def share_of(split: StreamedSplit) -> Share:
    return Share(Sampler(4, len(split), BATCH, True), ColorSpace("lab"), CPU, torch.float64, None, 0, 1)


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


def test_workers_end_when_the_loader_is_closed(root: Path) -> None:
    split, before = split_of(root), children()
    streaming = StreamingLoader(split, share_of(split), 2)
    streaming.micro_batches(0)
    assert len(children() - before) == 2
    streaming.micro_batches(5)  # anew
    assert len(children() - before) == 2
    streaming.close()
    assert children() <= before
    streaming.close()


def test_damaged_images_are_told_by_the_trainer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    split = split_of(images(tmp_path))
    path = tmp_path / "train" / "cat" / "002.jpg"
    path.write_bytes(bytes(path.stat().st_size))
    streaming = StreamingLoader(split, share_of(split), 2)
    epochs = 3
    caplog.set_level(logging.WARNING)
    seen = [batch.target for step in range(epochs * -(-26 // BATCH)) for batch in streaming.micro_batches(step)]
    streaming.close()
    (told,) = [record.getMessage() for record in caplog.records]
    assert told == "train/cat/002.jpg can't be decoded, and is replaced by grey"
    # a,b of a grey are 0 to the fourth digit.
    assert epochs <= sum(bool(target.abs().max() < 1e-3) for target in torch.cat(seen)) <= epochs + 1


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
def child(root: Path) -> Iterator[subprocess.Popen[str]]:
    """A process with two workers, which answers to numbers of steps."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "unit")])}
    command = [sys.executable, "-c", CHILD, str(root), str(Path(__file__).parent)]
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
