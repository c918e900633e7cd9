"""What makes a step fast, but for how fast it is: nobody waits for the device, what is compiled learns the same."""

import ctypes
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import alone_on_the_cpu, tiny
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.utils._python_dispatch import TorchDispatchMode

from colordist.engine.environment import keep_freed_memory
from colordist.engine.launch import let_threads_sleep
from colordist.engine.runtime import Engine
from colordist.errors import UserError
from colordist.run.folder import RunFolder
from colordist.training.build import build_trainer
from colordist.training.trainer import Trainer

aten = torch.ops.aten
WAITS = (aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten._unique2)
"""What a host can't do before the device has done all that it was told: sizes and values depend on it."""


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with alone_on_the_cpu(monkeypatch):
        yield


@pytest.fixture
def trainers(tmp_path: Path) -> Iterator[Callable[..., Trainer]]:
    """Makes trainers; closes them."""
    made: list[Trainer] = []

    def make(**settings: Any) -> Trainer:  # noqa: ANN401  any setting
        made.append(build_trainer(tiny(**settings), RunFolder(tmp_path / str(len(made)))))
        return made[-1]

    yield make
    for trainer in made:
        trainer.close()


class Waits(TorchDispatchMode):
    """Counts what makes the host wait for the device, had it one: also within backward."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count: Counter[str] = Counter()
        for name in ("cpu", "numpy", "tolist"):
            monkeypatch.setattr(Tensor, name, self._counted(name, getattr(Tensor, name)))

    def _counted(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401  whatever the method takes
            self.count[name] += 1
            return method(*arguments, **keywords)

        return counted

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        if func.overloadpacket in WAITS:
            self.count[str(func.overloadpacket)] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "settings",
    [
        {"task.name": "autoencoder"},
        {"optimizer__generator__clip_norm": 1.0, "train__micro_batch_size": 3},
        {"task__augment": ["translation", "cutout"], "task__r1_weight": 0.1, "task__adversarial": "relativistic"},
        {"model__noise": 2, "task__candidates": 2},
        {"task.name": "cyclegan"},
        {"train__precision": "bf16"},
    ],
    ids=lambda settings: ",".join(settings),
)
def test_between_lines_of_the_log_nobody_waits_for_the_device(
    settings: dict[str, Any], trainers: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainers(train__steps=20, log__every=6, evaluate__every=20, checkpoint__every=20, **settings)
    with Waits(monkeypatch) as waits:
        for step in range(5):
            trainer.advance(step)
        assert not waits.count
        trainer.advance(5)
        assert waits.count  # the line itself has to know the numbers


def learned(trainer: Trainer, steps: int = 3) -> dict[str, Tensor]:
    trainer.start()
    for step in range(steps):
        trainer.advance(step)
    return {
        f"{name}.{key}": value.clone()
        for name, network in trainer.task.networks.items()
        for key, value in network.module.state_dict().items()
    }


@pytest.mark.skipif(shutil.which("g++") is None, reason="PyTorch compiles for CPUs with g++")
def test_compiled_networks_learn_the_same(trainers: Callable[..., Trainer]) -> None:
    torch._dynamo.reset()
    before = counters["stats"]["unique_graphs"]
    plain, compiled = (learned(trainers(train__precision="fp64", train__compile=each)) for each in ("off", "default"))
    assert counters["stats"]["unique_graphs"] - before >= 3  # the discriminator awake and asleep
    torch.testing.assert_close(compiled, plain, rtol=1e-9, atol=1e-12)  # keys, too


@pytest.mark.skipif(shutil.which("g++") is None, reason="PyTorch compiles for CPUs with g++")
@pytest.mark.parametrize(
    "settings",
    [
        {"train__precision": "bf16"},
        {"task__name": "cyclegan"},
        {"task__name": "flow"},
        {"model__blocks": 1, "model__attention_level": 1, "task__adversarial": "relativistic"},
        {"model__norm": "instance", "train__activation_checkpointing": True},
    ],
)
def test_a_compiled_network_is_one_graph(
    settings: dict[str, Any], trainers: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_module = nn.Module.compile
    graphs_only = {"backend": "eager", "dynamic": False}  # without code for them, which takes long
    monkeypatch.setattr(nn.Module, "compile", lambda module, **_: compile_module(module, **graphs_only))
    torch._dynamo.reset()
    counters.clear()
    trainers(train__compile="default", **settings).advance(0)
    assert counters["stats"]["unique_graphs"] > 0
    assert not counters["graph_break"]


def test_what_is_compiled_is_what_the_wrapper_calls(trainers: Callable[..., Trainer]) -> None:
    trainer = trainers(train__compile="default")
    for name, network in trainer.task.networks.items():
        assert network.module._compiled_call_impl is not None, name
        assert not any("_orig_mod" in key for key in network.module.state_dict())


def test_graphs_are_for_gpus() -> None:
    with pytest.raises(UserError, match=r"train.compile is graphs.* try train.compile default"):
        Engine("fp32", compiled="graphs")


def test_what_is_compiled_is_not_differentiated_twice() -> None:
    with pytest.raises(UserError, match=r"train.compile is default, .* task.r1_weight .* try train.compile off"):
        tiny(train__compile="default", task__r1_weight=0.5)


def test_deepspeed_compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(UserError, match=r"train.compile is default, .* use launch/multi_gpu.yaml"):
        Engine("fp32", compiled="default")


class Malloc:
    """Stands for the C library, and notes what it is told. Before glibc 2.35 it took no more than 32 MiB."""

    def __init__(self, most: int = 2**30) -> None:
        self.told: dict[int, int] = {}
        self.most = most

    def mallopt(self, what: int, value: int) -> int:
        if value > self.most:
            return 0
        self.told[what] = value
        return 1


@pytest.mark.parametrize("most", [2**30, 2**25])
def test_large_buffers_stay_too(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    malloc = Malloc(most)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: malloc)
    monkeypatch.setattr("sys.platform", "linux")
    keep_freed_memory()
    assert malloc.told == {-3: most, -1: -1}  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD of malloc.h


def test_whoever_sets_up_malloc_knows_better(monkeypatch: pytest.MonkeyPatch) -> None:
    malloc = Malloc()
    monkeypatch.setattr(ctypes, "CDLL", lambda _: malloc)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000")
    keep_freed_memory()
    assert not malloc.told


@pytest.mark.parametrize(
    ("given", "found"),
    [({}, "3000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
    ids=str,
)
def test_threads_sleep_unless_told_otherwise(
    given: dict[str, str], found: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = dict(given)
    monkeypatch.setattr(os, "environ", environment)
    let_threads_sleep()
    assert environment.get("GOMP_SPINCOUNT") == found


def test_nothing_is_compiled_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match=r"train.compile is default, but there is no no-such-compiler here"):
        Engine("fp32", compiled="default")
