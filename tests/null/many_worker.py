"""Waits of rank 0 of many processes, as JSON, in one process: collectives of PyTorch's fake backend return at once.

python many_worker.py FILE     writes {"CASE, PRECISION, PROCESSES": waits of three steps}
"""

import itertools
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import null_device
import pytest
import torch
import torch.distributed as dist
from steps_worker import CASES, PRECISIONS, config_of, on_the_device
from torch import Tensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from colordist.engine.runtime import Engine
from colordist.run.folder import RunFolder
from colordist.training.build import build_trainer

WORLDS = (8, 512)
IMAGES = 4  # a process and step
WARM_UP = 12  # steps: DistributedDataParallel measures itself in the first ten, for which it waits


@contextmanager
def among(processes: int) -> Iterator[None]:
    """As rank 0 of several processes on the null device."""

    def reduced(_: object, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:  # type: ignore[name-defined]
        dist.all_reduce(bucket.buffer())
        future: torch.futures.Future[Tensor] = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    with on_the_device(), pytest.MonkeyPatch.context() as patch:
        launch = {"RANK": 0, "WORLD_SIZE": processes, "LOCAL_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 1}
        for name, value in launch.items():
            patch.setenv(name, str(value))
        patch.setattr(Engine, "_start_monitor", lambda self, timeouts: None)  # it would wait for the others
        patch.setattr("accelerate.utils.gather_object", lambda values: values * processes)
        patch.setattr("accelerate.utils.broadcast_object_list", lambda values: values)
        patch.setattr("colordist.engine.ddp.allreduce_hook", reduced)  # the backend's future holds nothing
        dist.init_process_group("fake", rank=0, world_size=processes, store=FakeStore())
        try:
            yield
        finally:
            dist.destroy_process_group()


def waits(case: str, precision: str, processes: int) -> dict[str, int]:
    """Calls that waited for the device in three steps."""
    with TemporaryDirectory() as folder, among(processes):
        config = config_of(case, precision, Path(folder))
        config = replace(config, train=replace(config.train, global_batch_size=IMAGES * processes))
        trainer = build_trainer(config, RunFolder(Path(folder) / "run"))
        trainer.start()
        for step in range(WARM_UP):
            trainer.advance(step)
        before = null_device.counts()
        for step in range(WARM_UP, WARM_UP + 3):
            trainer.advance(step)
        found = null_device.counts() - before
        trainer.loader.close()
        if trainer.lock is not None:
            trainer.lock.release()
        return {name: found[name] for name in null_device.WAITS if found[name]}


def main(file: Path) -> None:
    every = itertools.product(CASES, PRECISIONS, WORLDS)
    file.write_text(json.dumps({f"{case}, {name}, {world}": waits(case, name, world) for case, name, world in every}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
