"""Batch normalisation over the global batch, on one process: what torch's own answers, learns and remembers."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from helpers import alone_on_the_cpu, batch_of, random_batch, tiny
from torch import Tensor, nn

from colordist.engine.batch_norm import GlobalBatchNorm2d, RunningStatistics, use_global_statistics
from colordist.engine.runtime import Engine
from colordist.tasks.base import Task
from colordist.training.build_task import build_task

BATCH = random_batch(6)
CPU = torch.device("cpu")


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    """A process group of one."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def layers(dtype: torch.dtype = torch.float64) -> tuple[nn.BatchNorm2d, GlobalBatchNorm2d]:
    """Torch's layer and ours, with the same random weights."""
    theirs = nn.BatchNorm2d(3).to(dtype)
    with torch.no_grad():
        for tensor in (theirs.weight, theirs.bias, theirs.running_mean, theirs.running_var):
            assert tensor is not None
            tensor.uniform_(0.5, 2)
    ours = use_global_statistics(copy.deepcopy(theirs), CPU)
    assert isinstance(ours, GlobalBatchNorm2d)
    return theirs, ours


def some(dtype: torch.dtype = torch.float64, mean: float = 0.0) -> Tensor:
    return (torch.randn(4, 3, 5, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + mean).to(dtype)


def learned(layer: nn.Module, images: Tensor, *, train: bool) -> list[Tensor]:
    """Answer, gradients and state after three passes, the last of them in training or evaluation mode."""
    layer.zero_grad()
    x = images.clone().requires_grad_()
    for mode in (True, True, train):
        answer = layer.train(mode)(x)
    (answer * torch.arange(answer.numel()).view_as(answer).to(answer) ** 2).mean().backward()
    assert x.grad is not None
    return [answer, x.grad, *[p.grad for p in layer.parameters() if p.grad is not None], *layer.state_dict().values()]


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("mean", [0.0, 1e4])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_it_is_torchs_layer(train: bool, mean: float, memory_format: torch.memory_format) -> None:
    theirs, ours = layers()
    images = some(mean=mean).contiguous(memory_format=memory_format)
    for expected, found in zip(learned(theirs, images, train=train), learned(ours, images, train=train), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures("group")
def test_its_gradient_is_the_derivative() -> None:
    _, ours = layers()

    def answer(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        result: Tensor = torch.func.functional_call(ours, {"weight": weight, "bias": bias}, (x,))
        return result

    inputs = (some().requires_grad_(), ours.weight, ours.bias)
    assert torch.autograd.gradcheck(answer, inputs)
    assert torch.autograd.gradgradcheck(answer, inputs)


@pytest.mark.usefixtures("group")
def test_digits_survive_a_large_mean() -> None:
    """In float32 the mean square 1e6 less the squared mean would say nothing about a variance of 1."""
    theirs, ours = layers()
    images = some(mean=1e3)
    found = ours.float()(images.float())
    assert (found - theirs(images)).abs().max() < 1e-3


@pytest.mark.usefixtures("group")
def test_half_precision_is_only_for_the_answer() -> None:
    theirs, ours = layers(torch.float32)
    images = some(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = ours(images)
    expected = theirs(images.float())
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, expected.bfloat16())
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


@pytest.mark.usefixtures("group")
def test_what_is_no_batch_of_images_is_refused() -> None:
    _, ours = layers()
    with pytest.raises(ValueError, match="expected 4D input"):
        ours(torch.zeros(3, 5, dtype=torch.float64))


@pytest.mark.parametrize(("device", "layer"), [("cpu", GlobalBatchNorm2d), ("cuda", nn.SyncBatchNorm)])
def test_conversion_keeps_what_the_optimizer_holds(device: str, layer: type) -> None:
    plain = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Sequential(nn.BatchNorm2d(2), nn.InstanceNorm2d(2)))
    before, state = dict(plain.named_parameters()), plain.state_dict(keep_vars=True)
    converted = use_global_statistics(plain, torch.device(device))
    norms = [type(module) for module in converted.modules() if "Norm" in type(module).__name__]
    assert norms == [layer, nn.InstanceNorm2d]
    assert len(RunningStatistics(converted).layers) == 1
    assert all(parameter is before[name] for name, parameter in converted.named_parameters())
    assert converted.state_dict(keep_vars=True).keys() == state.keys()
    assert all(value is state[name] for name, value in converted.state_dict(keep_vars=True).items())


# --- whose running statistics follow


@pytest.mark.parametrize("ours", [False, True])
@pytest.mark.usefixtures("group")
def test_asleep_it_normalises_by_the_batch_and_remembers_nothing(ours: bool) -> None:
    layer = layers()[ours]
    statistics, before, trainable = RunningStatistics(layer), copy.deepcopy(layer.state_dict()), layer(some())
    layer.load_state_dict(before)
    statistics.update_ema(False)
    assert torch.equal(layer(some()), trainable)
    assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())
    evaluated = layer.eval()(some())
    statistics.update_ema(True)
    assert torch.equal(layer(some()), evaluated)
    assert not torch.equal(evaluated, trainable)


def prepared(**settings: Any) -> tuple[Engine, Task]:  # noqa: ANN401  any setting
    config = tiny(train__precision="fp64", model__norm="batch", discriminator__norm="batch", **settings)
    engine, task = Engine("fp64"), build_task(config)
    engine.prepare(task)
    return engine, task


def state(task: Task, name: str) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in task.networks[name].module.state_dict().items()}


@pytest.mark.parametrize(("learns", "rests"), [("discriminator", "generator"), ("generator", "discriminator")])
def test_only_the_network_whose_turn_it_is_remembers(learns: str, rests: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with alone_on_the_cpu(monkeypatch):
        engine, task = prepared()
        monkeypatch.setattr(task, "phases", lambda step: (learns,))
        before = {name: state(task, name) for name in task.networks}
        engine.step(task, [BATCH], 0)
        assert all(torch.equal(value, before[rests][key]) for key, value in state(task, rests).items())
        seen = [value for key, value in state(task, learns).items() if key.endswith("num_batches_tracked")]
        assert seen
        assert all(count == 1 for count in seen)


def test_a_skipped_update_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    with alone_on_the_cpu(monkeypatch):
        engine, task = prepared(discriminator__spectral_norm=False)
        engine.step(task, [BATCH], 0)
        before = {name: state(task, name) for name in task.networks}
        log = engine.step(task, [batch_of(BATCH.grey * float("nan"), BATCH.target)], 1)
        assert log["diagnostics/generator/skipped"] == log["diagnostics/discriminator/skipped"] == 1
        for name in task.networks:
            assert all(torch.equal(value, before[name][key]) for key, value in state(task, name).items())
        average = task.networks["generator"].ema
        assert average is not None
        assert all(value.isfinite().all() for value in average.module.state_dict().values())
        log = engine.step(task, [BATCH], 2)
        assert log["diagnostics/generator/skipped"] == log["diagnostics/discriminator/skipped"] == 0
