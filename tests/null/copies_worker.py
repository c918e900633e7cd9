"""Copies to the null device, which are run late: of reused memory, and of batches."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from helpers import alone_on_the_cpu
from steps_worker import config_of, on_the_device
from torch import Tensor

from colordist.data.batch import Batch
from colordist.engine.runtime import Engine
from colordist.evaluation.build_source import build_source
from colordist.training.build import build_loader
from colordist.training.build_task import build_task

STEPS = 5
COPIED = ("uniforms", "noise", "share_index")
"""What a batch copies and doesn't compute on the device."""


def reused_memory_shows() -> None:
    """Pinned memory is read when the copy is run; pageable memory at once."""
    pinned, pageable = torch.ones(4).pin_memory(), torch.ones(4)
    first, second = (each.to("cuda", non_blocking=True) for each in (pinned, pageable))
    pinned.zero_()
    pageable.zero_()
    assert first.tolist() == [0.0] * 4
    assert second.tolist() == [1.0] * 4


def batches(context: AbstractContextManager[None]) -> Iterator[Batch]:
    """The batches of some steps, without waiting for any."""
    with context, TemporaryDirectory() as folder:
        config = config_of("variants", "fp32", Path(folder))
        engine, task = Engine("fp32"), build_task(config)
        loader = build_loader(config, task, build_source(config.data, engine), engine)
        yield from [loader.micro_batches(step)[0] for step in range(STEPS)]


def batches_arrive_whole() -> None:
    """Their memory isn't reused before it has been copied."""
    with pytest.MonkeyPatch.context() as patch:
        expected = list(batches(alone_on_the_cpu(patch)))
    found = list(batches(on_the_device()))
    for step in range(STEPS):
        for name in COPIED:
            there: Tensor = getattr(found[step], name)
            assert there.is_cuda
            assert torch.equal(there.cpu(), getattr(expected[step], name)), (step, name)


if __name__ == "__main__":
    reused_memory_shows()
    batches_arrive_whole()
