"""Gradient checkpointing: less is kept for backward, and not a bit of what is learned changes."""

from typing import Any

import pytest
import torch
from helpers import alone_on_the_cpu, prepared, random_batch, tiny
from torch import Tensor, nn

from colordist.models.activation_checkpointing import enable_activation_checkpointing
from colordist.models.discriminator import Discriminator, PatchGANSettings
from colordist.models.unet import UNet, UNetSettings
from colordist.training.build_task import build_networks, build_task

CASES: dict[str, dict[str, Any]] = {
    "unet": {"task__name": "autoencoder", "model__blocks": 1, "model__attention_level": 1},
    "autoencoder": {"task__name": "autoencoder", "model__name": "autoencoder", "model__norm": "instance"},
    "timm_unet": {
        "task__name": "autoencoder",
        "model__name": "timm_unet",
        "model__encoder": "test_efficientnet",
        "data__image_size": 64,
    },
    "half": {"task__name": "autoencoder", "train__freeze": ["encoder"]},
    "noise": {"task__name": "autoencoder", "model__noise": 3, "task__candidates": 2},
    "cgan": {"discriminator__norm": "group"},
    "bf16": {"train__precision": "bf16"},
    "micro-batches": {"train__micro_batch_size": 2},
    "penalties": {"task__r1_weight": 1.0, "task__r2_weight": 0.5},
    "cyclegan": {"task__name": "cyclegan"},
    "flow": {"task__name": "flow"},
}


def learned(monkeypatch: pytest.MonkeyPatch, *, activation_checkpointing: bool, **settings: Any) -> dict[str, Tensor]:  # noqa: ANN401
    """All that training changes in three steps, and what is logged of the last one."""
    sizes: dict[str, Any] = {}
    if "model__encoder" not in settings:
        sizes |= {"model__depth": 2, "data__image_size": 16}
    if settings.get("task__name") not in ("autoencoder", "flow"):
        sizes["discriminator__depth"] = 2
    config = tiny(train__activation_checkpointing=activation_checkpointing, **sizes, **settings)
    with alone_on_the_cpu(monkeypatch):
        engine, task, networks = prepared(config)
        size = config.data.image_size
        batch = random_batch(4, size, dtype=torch.float32, noise=(task.candidates, *task.noise_shape(size)))
        batches = [batch] if config.train.micro_batch_size is None else [batch[:2], batch[2:]]
        for step in range(3):
            log = engine.step(task, batches, step)
        for name, network in networks.items():
            state = network.state_dict()
            log |= {f"{name}/{key}": value for key, value in (state["module"] | state.get("ema", {})).items()}
            moments = state["optimizer"]["state"]
            log |= {f"{name}/{place}/{key}": each[key] for place, each in moments.items() for key in each}
    return log


@pytest.mark.parametrize("case", CASES)
def test_the_same_bits(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = learned(monkeypatch, activation_checkpointing=False, **CASES[case])
    recomputed = learned(monkeypatch, activation_checkpointing=True, **CASES[case])
    assert recomputed.keys() == kept.keys()
    for name, value in kept.items():
        assert torch.equal(recomputed[name], value), name


# --- what is kept


def kept(network: nn.Module, *inputs: Tensor) -> int:
    """Numbers that are kept for backward of a forward pass, besides the weights."""
    weights = {weight.data_ptr() for weight in network.parameters()}
    found: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in weights:
            found[tensor.data_ptr()] = tensor  # held, so that no address is given out twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        assert network(*inputs).requires_grad
    return sum(tensor.untyped_storage().size() // tensor.element_size() for tensor in found.values())


def test_the_unet_keeps_what_goes_into_its_levels() -> None:
    """One image of 16 x 16, width 4. Into the first level goes 1 channel, down go 4 at 16 x 16 and 8 at 8 x 8, up go 16
    at 4 x 4 and 8 at 8 x 8, into the answer 4 at 16 x 16. What comes across is kept already.
    """
    network = UNet(UNetSettings(width=4, depth=2))
    before = kept(network, torch.zeros(1, 1, 16, 16))
    enable_activation_checkpointing(network)
    image, half, quarter = 16 * 16, 8 * 8, 4 * 4
    by_hand = (1 + 4 + 4) * image + (8 + 8) * half + 16 * quarter
    assert kept(network, torch.zeros(1, 1, 16, 16)) == by_hand
    assert by_hand < before / 3


def test_the_discriminator_keeps_what_goes_into_its_levels() -> None:
    """One image of 16 x 16, width 4: 3 channels go in, the next level gets 8 at 8 x 8, the logits 16 at 4 x 4."""
    network = Discriminator(PatchGANSettings(width=4, depth=2, spectral_norm=False, norm="group"), inputs=3)
    images = torch.zeros(1, 1, 16, 16), torch.zeros(1, 2, 16, 16)
    before = kept(network, *images)
    enable_activation_checkpointing(network)
    assert kept(network, *images) == 3 * 16 * 16 + 8 * 8 * 8 + 16 * 4 * 4 < before / 2


# --- what it leaves as it is


@pytest.mark.parametrize("name", ["unet", "autoencoder"])
def test_the_averaged_copy_and_the_names_stay(name: str) -> None:
    plain, recomputing = (
        tiny(task__name="autoencoder", model__name=name, train__activation_checkpointing=activation_checkpointing)
        for activation_checkpointing in (False, True)
    )
    one, other = (build_networks(build_task(config), config)["generator"] for config in (plain, recomputing))
    assert one.module.state_dict().keys() == other.module.state_dict().keys()
    assert one.ema is not None
    assert other.ema is not None
    found = [
        getattr(module, "activation_checkpointing", None) for module in (one.module, other.module, other.ema.module)
    ]
    assert found == [False, True, False]


def test_a_compiled_network_recomputes_without_a_break() -> None:
    network = UNet(UNetSettings(width=4, depth=1))
    grey = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    network(grey).square().sum().backward()
    eager = [weight.grad for weight in network.parameters()]
    network.zero_grad()
    enable_activation_checkpointing(network)
    network.compile(backend="aot_eager", fullgraph=True)
    network(grey).square().sum().backward()
    for weight, expected in zip(network.parameters(), eager, strict=True):
        assert weight.grad is not None
        torch.testing.assert_close(weight.grad, expected)
