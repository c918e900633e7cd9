"""What the tests on a GPU share. They need torch, accelerate and pytest, and of this project nothing but its code."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from helpers import alone_on_the_cpu, random_batch, tiny
from runs import flat, tensors
from torch import Tensor

from colordist.config import Config
from colordist.data.batch import Batch
from colordist.engine.ddp import DDPStrategy
from colordist.engine.runtime import Engine
from colordist.tasks.base import Task
from colordist.training.build_task import build_networks, build_task

DEVICE = "cuda"
GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here"),
]
EVERYTHING: dict[str, Any] = {
    "task__adversarial": "relativistic",
    "task__r1_weight": 3.0,
    "task__r2_weight": 2.0,
    "task__augment": ["translation", "cutout"],
    "model__blocks": 1,
    "model__attention_level": 1,
    "optimizer__generator__clip_norm": 0.5,
}
"""What there is to choose in a conditional GAN, chosen."""
DOUBLE: dict[str, Any] = {"train__precision": "fp64", "model__norm": "instance", "data__image_size": 16}
KINDS: dict[str, dict[str, Any]] = {
    "autoencoder": {"task__name": "autoencoder"},
    "noise": {"task__name": "autoencoder", "model__noise": 2, "task__candidates": 3},
    "cgan": {"task__name": "cgan"},
    "everything": {"task__name": "cgan"} | EVERYTHING,
    "cyclegan": {"task__name": "cyclegan"},
    "flow": {"task__name": "flow"},
}


@contextmanager
def alone_on(device: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One process on a device; whatever an engine changes for the whole process is put back."""
    with alone_on_the_cpu(monkeypatch):
        monkeypatch.setattr("colordist.engine.runtime.device_type", lambda: device)
        yield


class Training:
    """A task that is trained on random images, a step at a time, from weights past their start at grey."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.engine = Engine(config.train.precision, compiled=config.train.compile)
        self.task: Task = build_task(config)
        random = torch.Generator().manual_seed(5)
        for network in self.task.networks.values():
            with torch.no_grad():
                for parameter in network.module.parameters():
                    if not parameter.any():
                        parameter.copy_(torch.randn(parameter.shape, generator=random) / 10)
        self.engine.prepare(self.task, build_networks(self.task, config))

    def batch(self, count: int) -> Batch:
        """Images of noise, on the device."""
        noise = (self.task.candidates, *self.task.noise_shape(self.config.data.image_size))
        batch = random_batch(count, dtype=self.engine.dtype, noise=noise)
        return Batch(**{name: value.to(self.engine.device) for name, value in vars(batch).items()})

    def step(self, step: int, count: int = 4) -> dict[str, float]:
        """Returns the log."""
        log = self.engine.step(self.task, [self.batch(count)], step)
        return {name: float(value) for name, value in log.items()}

    def strategy(self, name: str) -> DDPStrategy:
        strategy = self.engine.strategies[name]
        assert isinstance(strategy, DDPStrategy)
        return strategy

    def state(self) -> dict[str, Tensor]:
        """All numbers that training changes, on the CPU, by their path."""
        state = tensors(flat(copy.deepcopy(self.engine.state_dict())))
        return {path: value.detach().cpu() for path, value in state.items()}


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Each tensor differs by at most this share of its length."""
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        difference = (found[key].double() - value.double()).norm()
        assert difference <= tolerance * value.double().norm(), (key, float(difference))


def double(kind: str, **more: Any) -> Config:  # noqa: ANN401  any setting
    """A small config of a kind, in double precision."""
    config: Config = tiny(**KINDS[kind] | DOUBLE | more)
    return config
