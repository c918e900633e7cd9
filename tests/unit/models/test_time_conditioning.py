"""Generators with a time input: what it changes, what it doesn't, and export of the solver."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from photos import snapshot_in
from torch import Tensor, nn

from colordist import registry
from colordist.errors import UserError
from colordist.inference import onnx_file
from colordist.models.factory import ModelFactory, build_generator
from colordist.models.seeding import seeded
from colordist.models.time_embedding import TimeEmbedding, modulated
from colordist.run import snapshot
from colordist.tasks.flow import FlowSettings, FlowTask

NETWORKS: dict[str, dict[str, Any]] = {
    "unet": {"name": "unet", "width": 4, "depth": 2, "blocks": 1, "attention_level": 2},
    "efficientnet": {"name": "timm_unet", "encoder": "test_efficientnet", "weights": "none", "width": 4},
    "convnext": {"name": "timm_unet", "encoder": "test_convnext", "weights": "none", "width": 4},
}
TIMES = torch.tensor([0.2, 0.9])


def build(name: str) -> Any:  # noqa: ANN401  a network
    """A network with random weights throughout: a new one answers grey at any time."""
    settings = registry.make_settings("model", NETWORKS[name])
    network: Any = seeded(0, lambda: build_generator(settings, inputs=3, conditions=2, time_conditioned=True))
    torch.manual_seed(0)
    for layer in (network.last, network.time.films):
        nn.init.normal_(layer.weight, std=0.5)
    return network


def images(size: int = 64) -> Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_learns_and_the_time_counts(name: str) -> None:
    network = build(name)
    output = network(images(), time=TIMES)
    assert output.shape == (2, 2, 64, 64)
    assert not torch.allclose(output, network(images(), time=TIMES.flip(0)))
    output.square().mean().backward()
    assert [name for name, each in network.named_parameters() if each.grad is None] == []
    assert network.time.films.weight.grad.abs().sum(dim=1).all()  # at every level


@pytest.mark.parametrize("name", NETWORKS)
def test_each_image_has_its_own_time(name: str) -> None:
    network = build(name).eval()
    with torch.no_grad():
        both = network(images(), time=TIMES)
        for index in range(2):
            alone = network(images()[index : index + 1], time=TIMES[index : index + 1])
            torch.testing.assert_close(alone, both[index : index + 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["efficientnet", "convnext"])
def test_features_of_grey_do_not_depend_on_colours_or_time(name: str) -> None:
    network = build(name).eval()
    with torch.no_grad():
        features = network.encode_grey(images()[:, :1])
        given = network(images(), time=TIMES, features=features)
        assert torch.equal(given, network(images(), time=TIMES))
        assert not torch.equal(given, network(images(), time=TIMES, features=[0 * each for each in features]))


@pytest.mark.parametrize("name", NETWORKS)
def test_colours_far_away_count(name: str) -> None:
    """The noise at one corner has to be known at the other, if both belong to one object."""
    network, image = build(name).eval(), images()
    image.requires_grad_()
    network(image, time=TIMES)[:, :, 0, 0].sum().backward()
    assert image.grad is not None
    assert image.grad[:, 1:, -8:, -8:].abs().amax() > 0


def test_scales_and_shifts_by_hand() -> None:
    embedding = TimeEmbedding([1, 2], 4)
    nn.init.constant_(embedding.films.bias, 0.0)
    with torch.no_grad():
        embedding.films.bias.copy_(torch.tensor([1.0, 2, 3, 10, 20, 30]))  # the weights are 0
    first, second = embedding(torch.tensor([0.3]))
    assert modulated(torch.ones(1, 1, 1, 1), first).flatten().tolist() == [12]  # 1 * (1 + 1) + 10
    assert modulated(torch.ones(1, 2, 1, 1), second).flatten().tolist() == [23, 34]


def test_near_times_have_near_embeddings_and_far_ones_differ() -> None:
    seen: list[Tensor] = []
    embedding = TimeEmbedding([1], 4)
    embedding.embed.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs))
    embedding(torch.tensor([0.5, 0.50001, 0.6]))
    assert seen[0].shape == (3, 64)
    assert (seen[0][0] - seen[0][1]).abs().max() < 0.02
    assert (seen[0][0] - seen[0][2]).abs().max() > 0.5


def saved(folder: Path, name: str, **settings: Any) -> snapshot.Snapshot:  # noqa: ANN401
    """A snapshot of a flow with random weights, read again."""
    model = registry.make_settings("model", NETWORKS[name])
    task = FlowTask(FlowSettings(name="flow", **settings), model)
    snapshot.write(folder / "step-000001", task, {"generator": build(name)}, {"step": 1, "image_size": 64})
    return snapshot.read(folder / "latest")


def test_a_snapshot_samples_the_same(tmp_path: Path) -> None:
    trained = saved(tmp_path, "efficientnet", solver="heun", solver_steps=3)
    grey, noise = images()[:, :1], torch.randn(4, 2, 64, 64)
    task = trained.task
    assert isinstance(task, FlowTask)
    assert (task.settings.solver, task.settings.solver_steps) == ("heun", 3)
    with torch.no_grad():
        expected = task.sample({"generator": build("efficientnet").eval()}, grey, noise)
        torch.testing.assert_close(trained.sample(grey, noise), expected)


def test_steps_of_the_solver_can_be_chosen_later(tmp_path: Path) -> None:
    saved(tmp_path, "unet", solver_steps=3)
    grey, noise = images()[:, :1], torch.randn(2, 2, 64, 64)
    few, more, same = (snapshot.read(tmp_path / "latest", steps).sample(grey, noise) for steps in (1, 3, None))
    assert torch.equal(more, same)
    assert not torch.equal(few, more)
    with pytest.raises(UserError, match="solver_steps is 0, but must be at least 1"):
        snapshot.read(tmp_path / "latest", 0)


def test_a_network_without_solver_has_no_steps(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="solver_steps is 4, but a network of task autoencoder has no solver"):
        snapshot.read(snapshot_in(tmp_path / "step-1"), 4)


@pytest.mark.parametrize("name", NETWORKS)
def test_initial_weights_do_not_depend_on_the_time_input(name: str) -> None:
    """It adds parameters, and those of other shapes differ: all others are the same, in their names and values."""
    factory: Callable[..., nn.Module] = ModelFactory(0, registry.make_settings("model", NETWORKS[name])).generator
    plain, conditioned = factory(inputs=3).state_dict(), factory(inputs=3, time_conditioned=True).state_dict()
    assert plain.keys() < conditioned.keys()
    assert not any(key.startswith("time.") for key in plain)
    same = [key for key in plain if name == "unet" or key.startswith("encoder.")]
    assert all(torch.equal(plain[key], conditioned[key]) for key in same)


@pytest.mark.parametrize(("name", "solver"), [("efficientnet", "euler"), ("unet", "heun")])
def test_export_of_the_whole_solver(name: str, solver: str, tmp_path: Path) -> None:
    trained = saved(tmp_path, name, solver=solver, solver_steps=1)
    assert onnx_file.write(tmp_path / "model.onnx", trained) <= onnx_file.TOLERANCE
