"""Tasks with colour hints: their networks are given them in training and in use, and those without are unchanged."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import config_with, prepared, random_batch, tiny
from torch import Tensor, nn

from colordist import registry
from colordist.data.hints import hints_of, random_squares
from colordist.data.sampler import Sampler
from colordist.evaluation.build_source import build_source
from colordist.inference import onnx_file
from colordist.models.factory import ModelFactory
from colordist.run import snapshot
from colordist.tasks.base import Task
from colordist.training.build import build_loader

TIMM = {"model.name": "timm_unet", "model.encoder": "test_efficientnet", "model.weights": "none", "data.image_size": 64}
TASKS: dict[str, dict[str, Any]] = {
    "autoencoder": {"task.name": "autoencoder"},
    "rgb": {"task.name": "autoencoder", "model.color_space": "rgb"},
    "codes": {"task.name": "autoencoder", "model.noise": 2, "task.candidates": 2},
    "cgan": {"task.name": "cgan"},
    "flow": {"task.name": "flow", "task.solver_steps": 2},
    "timm": {"task.name": "autoencoder", **TIMM},
    "timm-flow": {"task.name": "flow", "task.solver_steps": 2, **TIMM},
}


def riot(module: nn.Module) -> nn.Module:
    """Random weights where a new network has zeros."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.3)
    return module.eval()


def task_of(name: str, hints: bool = True) -> tuple[Task, dict[str, nn.Module]]:
    config = config_with(TASKS[name] | {"task.hints": hints})
    task: Task = registry.component("task", config.task.name)(config.task, config.model)
    networks = {each: riot(spec.module) for each, spec in task.build_sampled(ModelFactory(0, config.model)).items()}
    return task, networks


def hints_at(task: Task, size: int, value: float) -> Tensor:
    """A hint of one colour in the middle."""
    found = torch.zeros(2, task.hint_channels, size, size)
    found[:, :-1, size // 2 : size // 2 + 4, size // 2 : size // 2 + 4] = value
    found[:, -1:, size // 2 : size // 2 + 4, size // 2 : size // 2 + 4] = 1
    return found


@pytest.mark.parametrize("name", TASKS)
def test_a_hint_changes_colours_and_no_hint_is_zero(name: str) -> None:
    task, networks = task_of(name)
    size = 64 if "timm" in name else 32
    grey = torch.rand(2, 1, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    noise = task.variant_noise(0, grey)
    none = task.sample(networks, grey, noise)
    assert torch.equal(task.sample(networks, grey, noise, 0 * hints_at(task, size, 1.0)), none)
    red, blue = (task.sample(networks, grey, noise, hints_at(task, size, value)) for value in (1.0, -1.0))
    assert not torch.equal(red, none)
    assert not torch.equal(red, blue)


@pytest.mark.parametrize("name", ["timm", "timm-flow"])
def test_the_pretrained_encoder_sees_grey_alone(name: str) -> None:
    """Its weights are those of pictures; hints come in by convolutions of their own, at every resolution."""
    task, networks = task_of(name)
    network: Any = networks["generator"]
    assert network.image_channels == 1
    seen: list[Tensor] = []
    network.encoder.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    grey = torch.rand(2, 1, 64, 64)
    task.sample(networks, grey, task.variant_noise(0, grey), hints_at(task, 64, 1.0))
    assert seen
    assert all(torch.equal(each, grey) for each in seen)


@pytest.mark.parametrize("name", ["autoencoder", "cgan", "flow", "codes"])
def test_the_loss_sees_the_hints(name: str) -> None:
    """In training a network gets the same input as in use."""
    config = tiny(**{key.replace(".", "__"): value for key, value in (TASKS[name] | {"task.hints": True}).items()})
    _, task, networks = prepared(config)
    for network in networks.values():
        riot(network.module)
    shape = (task.candidates, *task.noise_shape(16))
    batch = random_batch(2, 16, noise=shape, dtype=torch.float32)
    calls = {each: network.module for each, network in networks.items()}
    phase, totals = "generator", []
    for value in (0.0, 1.0):
        given = type(batch)(**{**vars(batch), "hints": value * hints_at(task, 16, 1.0)})
        totals.append(task.loss(phase, calls, given, task.generate(calls, given), 10**6).total.item())
    assert totals[0] != totals[1]


def test_the_loader_gives_the_colours_of_the_target_in_any_micro_batches() -> None:
    config = tiny(task__hints=True, train__global_batch_size=16, train__micro_batch_size=5)
    engine, task, _ = prepared(config)
    loader = build_loader(config, task, build_source(config.data, engine), engine)
    batches = loader.micro_batches(3)
    assert len(batches) == 4
    target, hints = (torch.cat([vars(each)[name] for each in batches]) for name in ("target", "hints"))
    sampler = Sampler(config.seed, 100, 16, True, hints=True)
    where = random_squares(sampler.hint_uniforms(3, sampler.step(3)), *target.shape[2:])
    torch.testing.assert_close(hints, hints_of(torch.from_numpy(where), target), rtol=1e-5, atol=1e-6)
    assert 0 < (hints[:, -1].flatten(1).sum(1) > 0).sum() < 16
    assert batches[0].inputs.shape[1] == 1 + 3
    (again, *_) = loader.micro_batches(3)
    assert torch.equal(again.hints, batches[0].hints)


@pytest.mark.parametrize("name", ["autoencoder", "cgan", "flow", "timm-flow"])
def test_networks_without_hints_are_as_before(name: str) -> None:
    task, networks = task_of(name, hints=False)
    assert task.hint_channels == 0
    grey = torch.rand(1, 1, 64, 64)
    assert task.with_hints(grey, None) is grey
    assert random_batch(2).inputs.shape[1] == 1
    assert sum(each.numel() for each in networks["generator"].parameters()) < sum(
        each.numel() for each in task_of(name)[1]["generator"].parameters()
    )


@pytest.mark.parametrize("name", ["autoencoder", "flow"])
def test_export_has_an_input_for_hints(name: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    task, networks = task_of(name)
    snapshot.write(tmp_path / "step-1", task, networks, {"step": 1, "image_size": 32})
    trained = snapshot.read(tmp_path / "step-1")
    assert trained.task.hint_channels == 3
    assert onnx_file.write(tmp_path / "model.onnx", trained) < 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    assert names == (["grey", "noise", "hints"] if name == "flow" else ["grey", "hints"])
    inputs = {each: value.numpy() for each, value in onnx_file.Exported(trained).inputs(1, 1, 64, 64).items()}
    assert (session.run(None, inputs)[0] != session.run(None, inputs | {"hints": 0 * inputs["hints"]})[0]).any()
