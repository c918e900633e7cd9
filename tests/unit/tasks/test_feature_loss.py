"""Feature loss: by hand on a network of two layers, and in training with the tiny models of timm."""

import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import alone_on_the_cpu, batch_of, prepared, random_batch, timm_weights, tiny
from runs import assert_bit_equal, killed_run, learned, run
from safetensors.torch import load_file
from torch import Tensor, nn

from colordist.color import ColorSpace
from colordist.errors import UserError
from colordist.models.feature_network import FeatureNetwork
from colordist.models.pretrained import Pretrained
from colordist.models.unet import UNetSettings
from colordist.run.identity import fingerprint, identity
from colordist.tasks.autoencoder import AutoencoderSettings, AutoencoderTask
from colordist.tasks.cgan import CGANSettings, CGANTask
from colordist.tasks.feature_loss import feature_loss, relative_error
from colordist.training.build_task import build_task, load_pretrained

MODEL = "test_efficientnet"
Calls = Mapping[str, Callable[..., Any]]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a whole model, as timm saves them."""
    return timm_weights(tmp_path_factory.mktemp("weights") / "model.safetensors", MODEL)


def using(file: Path, **settings: Any) -> dict[str, Any]:  # noqa: ANN401  any setting
    own = {"task__feature_weight": 0.5, "task__feature_model": MODEL, "task__feature_weights": str(file)}
    return {"task__name": "autoencoder"} | own | settings


def refusal(**settings: Any) -> str:  # noqa: ANN401  any setting
    with pytest.raises(UserError) as error:
        build_task(tiny(task__feature_weight=1.0, **settings))
    assert "\n" not in str(error.value)
    return str(error.value)


# --- by hand


def two_layers(rgb: Tensor) -> Any:  # noqa: ANN401  as a module's answer
    """The red channel, and a thousand times the sum of all."""
    return [rgb[:, :1], 1000 * rgb.sum(dim=1, keepdim=True)]


def test_relative_errors_are_each_images_own() -> None:
    target = torch.tensor([[1.0, 3.0], [-10.0, 10.0]]).view(2, 2, 1, 1)
    found = torch.tensor([[2.0, 3.0], [-10.0, 15.0]]).view(2, 2, 1, 1)
    # Mean differences 0.5 and 2.5, over mean absolute targets of 2 and 10.
    assert relative_error(found, target).item() == pytest.approx((0.5 / 2 + 2.5 / 10) / 2)
    assert relative_error(1000 * found, 1000 * target).item() == pytest.approx(0.25)
    assert relative_error(target, target).item() == 0
    assert relative_error(found, torch.zeros_like(found)).isfinite()


def test_the_loss_by_hand() -> None:
    """Colours in [-1, 1]: targets (0.5, 0.5, 0.5) and (0.25, 1, 0.75) of sRGB, answers (0.75, 0.5, 0) and exact."""
    target = torch.tensor([[0.0, 0.0, 0.0], [-0.5, 1.0, 0.5]]).view(2, 3, 1, 1)
    color = torch.tensor([[0.5, 0.0, -7.0], [-0.5, 1.0, 0.5]]).view(2, 3, 1, 1).requires_grad_()  # -7: clipped to -1
    batch = batch_of(torch.zeros(2, 1, 1, 1), target)
    loss = feature_loss({"features": two_layers}, ColorSpace("rgb"), batch, color)
    red, total = 0.25 / 0.5, 0.25 / 1.5  # of the first image; the second is exact
    assert loss.item() == pytest.approx((red / 2 + total / 2) / 2)
    loss.backward()
    assert color.grad is not None
    # An answer of 1 is 0.5 of sRGB. The first image's red is in both layers, its clipped blue in none.
    slope = 0.5 / 2 / 2
    assert color.grad[0].flatten().tolist() == pytest.approx([slope * (1 / 0.5 - 1 / 1.5), -slope / 1.5, 0])


@pytest.mark.parametrize("name", ["autoencoder", "cgan"])
def test_it_joins_the_total_and_the_log(name: str) -> None:
    batch = random_batch(2, channels=3, dtype=torch.float32)
    color = torch.zeros_like(batch.target)
    calls: Calls = {"features": two_layers, "discriminator": lambda grey, color: color.mean(dim=1, keepdim=True)}
    model = UNetSettings(color_space="rgb")
    make = (
        (lambda weight: AutoencoderTask(AutoencoderSettings(feature_weight=weight), model))
        if name == "autoencoder"
        else (lambda weight: CGANTask(CGANSettings(feature_weight=weight), model))
    )
    without, half, one = (make(weight).loss("generator", calls, batch, color, 0) for weight in (0.0, 0.5, 1.0))
    assert "feature" not in without.terms
    assert half.terms["feature"].item() > 0
    assert (half.total - without.total).item() == pytest.approx(0.5 * half.terms["feature"].item(), rel=1e-4)
    assert (one.total - without.total).item() == pytest.approx(half.terms["feature"].item(), rel=1e-4)


def test_of_several_candidates_the_closest_counts() -> None:
    batch = random_batch(2, channels=3, dtype=torch.float32, noise=(2, 1))
    target = batch.target.clamp(-1, 1)
    batch = replace(batch, target=target)
    exact_second = torch.stack([target + 0.5, target], dim=1).flatten(0, 1)
    task = AutoencoderTask(AutoencoderSettings(feature_weight=1.0, candidates=2), UNetSettings(color_space="rgb"))
    assert task.loss("generator", {"features": two_layers}, batch, exact_second, 0).terms["feature"].item() == 0


# --- gradients


@pytest.mark.parametrize("space", ["lab", "rgb"])
@pytest.mark.parametrize("colors", [0.0, 1e-8, 1.0, -3.0, 60.0, 1e4, -1e4])
def test_gradients_are_finite_at_the_edges_of_the_gamut(space: Any, colors: float) -> None:  # noqa: ANN401
    """Black, nearly black, grey and white pixels, with any colours, in float32."""
    grey = torch.tensor([-1.0, -1 + 2 / 255, 0.0, 1.0]).view(4, 1, 1, 1).expand(4, 1, 8, 8)
    space = ColorSpace(space)
    color = torch.full((4, space.channels, 8, 8), colors, requires_grad=True)
    batch = batch_of(grey, torch.full_like(color, 0.1).detach())
    network = FeatureNetwork(Pretrained(MODEL), ["blocks.0", "blocks.1"])
    loss = feature_loss({"features": network}, space, batch, color)
    loss.backward()
    assert loss.isfinite()
    assert color.grad is not None
    assert color.grad.isfinite().all()
    if colors in (0.0, 1e-8):  # a new generator's answer
        assert color.grad[2].abs().min() > 0


def test_a_layer_is_not_overwritten_by_the_activation_behind_it() -> None:
    network = FeatureNetwork(Pretrained("vgg11"), ["features.0", "features.1"])
    before, after = network(torch.rand(1, 3, 32, 32))
    assert before.min() < 0
    assert torch.equal(before.relu(), after)


# --- in training


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with alone_on_the_cpu(monkeypatch):
        yield


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("precision", ["fp64", "fp32", "bf16"])
@pytest.mark.parametrize("name", ["autoencoder", "cgan"])
def test_a_step_trains_the_generator_alone(name: str, precision: str, file: Path) -> None:
    engine, task, networks = prepared(tiny(**using(file, task__name=name, train__precision=precision)))
    frozen = {key: value.clone() for key, value in task.frozen["features"].state_dict().items()}
    dtype = torch.float64 if precision == "fp64" else torch.float32
    log = engine.step(task, [random_batch(4, 32, dtype=dtype)], 0)
    assert log["loss/generator/feature"] > 0
    assert log["loss/generator/feature"].dtype == dtype
    assert log["diagnostics/generator/gradient_norm"] > 0
    assert list(networks) == [*task.networks]
    assert all(torch.equal(frozen[key], value) for key, value in task.frozen["features"].state_dict().items())
    assert not any(parameter.requires_grad for parameter in task.frozen["features"].parameters())


@pytest.mark.usefixtures("alone")
def test_a_kill_changes_nothing_and_nothing_of_it_is_saved(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = run(tmp_path / "straight", **using(file))
    broken = killed_run(tmp_path / "broken", monkeypatch, at=4, **using(file))
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(file.read_bytes())
    run(broken.path, **using(moved))  # the same weights from elsewhere
    assert_bit_equal(straight, broken)
    assert learned(straight) == learned(broken)
    assert all("loss/generator/feature" in each for each in learned(straight) if "loss/generator/l1" in each)
    assert all(name.startswith("generator.") for name in load_file(straight.snapshots / "latest/model.safetensors"))


@pytest.mark.usefixtures("alone")
def test_other_weights_are_another_run(file: Path, tmp_path: Path) -> None:
    run(tmp_path / "run", **using(file, train__steps=3))
    other = timm_weights(tmp_path / "other.safetensors", MODEL, 2)
    with pytest.raises(UserError, match=r"the pretrained weights have changed since the run in .*: name another"):
        run(tmp_path / "run", **using(other, train__steps=6))


def test_identity_has_the_weights_but_not_their_path(file: Path) -> None:
    usual, without = tiny(**using(file)), tiny(task__name="autoencoder")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    for config in (tiny(**using(Path("elsewhere"))), tiny(**using(file, task__feature_sha256=digest))):
        assert identity(config) == identity(usual)
        assert fingerprint(config) == fingerprint(usual)
    assert identity(without) == identity(tiny(task__name="autoencoder", task__feature_weight=0.0))
    changed = [using(file, task__feature_weight=1.0), using(file, task__feature_layers=["blocks.1"])]
    assert len({identity(each) for each in (usual, without, *(tiny(**settings) for settings in changed))}) == 4


# --- mistakes


def test_unknown_names_and_layers() -> None:
    assert "task.feature_model: timm has no model 'vgg61': did you mean" in refusal(task__feature_model="vgg61")
    told = refusal(task__feature_model=MODEL, task__feature_layers=["block.1"])
    assert told.startswith(f"task.feature_layers: {MODEL} has no layer block.1: try one like blocks.1, ")
    assert told.endswith(", or leave task.feature_layers out")
    assert "task.feature_layers is empty" in refusal(task__feature_model="test_vit")
    told = refusal(data__image_size=16, task__feature_layers=["features.30"])
    assert "task.feature_model: vgg16 can't take images of 16 pixels" in told
    assert "vit_tiny_patch16_224 can't take images of 32 pixels" in refusal(
        task__feature_model="vit_tiny_patch16_224", task__feature_layers=["blocks.1"]
    )
    assert "random features mean nothing" in refusal(task__feature_weights="none")
    assert "task.feature_weight is -1" in refusal_of_weight()


def refusal_of_weight() -> str:
    with pytest.raises(UserError) as error:
        tiny(task__feature_weight=-1.0)
    return str(error.value)


def test_the_default_layers_are_those_of_the_paper() -> None:
    task = build_task(tiny(task__feature_weight=1.0))
    found = task.frozen["features"](torch.rand(1, 3, 16, 16))
    assert [tuple(each.shape[1:]) for each in found] == [(64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2)]
    assert task.settings.pretrained == ("vgg16",)


def test_timm_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    assert refusal(task__feature_layers=["features.1"]) == "task.feature_model needs the package timm: pip install timm"


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"task__feature_weights": "nowhere"}, "task.feature_weights: there is no file nowhere"),
        ({"task__feature_sha256": "0" * 64}, "task.feature_weights: .* has SHA-256 .*, not 0000"),
        ({"task__feature_model": "test_resnet"}, "task.feature_weights: .* has no weights of test_resnet"),
    ],
)
def test_wrong_files(settings: dict[str, Any], told: str, file: Path) -> None:
    config = tiny(**using(file, **settings))
    engine, task, _ = prepared(config)
    with pytest.raises(UserError, match=told) as error:
        load_pretrained(task, config, engine)
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("alone")
def test_loading_draws_no_random_numbers_and_fetches_nothing_before(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(f"{FeatureNetwork.__module__}.create_pretrained", lambda *_, **__: pytest.fail("fetches"))
        before = torch.random.get_rng_state()
        config = tiny(**using(file))
        engine, task, _ = prepared(config)
    digest = load_pretrained(task, config, engine)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert digest is not None
    whole, own = load_file(file), task.frozen["features"].state_dict()
    assert torch.equal(own["body.conv_stem.weight"], whole["conv_stem.weight"])
    assert isinstance(task.frozen["features"], nn.Module)
    assert load_pretrained(build_task(tiny()), tiny(), engine) is None
