"""The estimate of memory, against counts by hand and against what autograd really keeps."""

import pytest
import torch
from helpers import tiny

from colordist.build_task import build_task
from colordist.config import batch_arithmetic
from colordist.memory import Memory, estimate
from colordist.models import build_discriminator, build_generator


def memory(**settings: object) -> Memory:
    config = tiny(**settings)
    return estimate(config, batch_arithmetic(config.train, 1))


def test_weights_by_hand() -> None:
    """Generator: weight, gradient, two moments, EMA. Discriminator: the first four. Four bytes a number."""
    config = tiny()
    generator = sum(p.numel() for p in build_generator(config.model).parameters())
    discriminator = sum(p.numel() for p in build_discriminator(config.discriminator, 2).parameters())
    assert memory().weights == 4 * (5 * generator + 4 * discriminator)
    assert memory(task="autoencoder").weights == 20 * generator
    assert memory(train__precision="fp64").weights == 2 * memory().weights


def test_frozen_weights_by_hand() -> None:
    """A weight that doesn't learn has no gradient and no moments: it is there twice, itself and in the EMA."""
    network = build_task(tiny(task="autoencoder", train__freeze=["encoder"])).networks["generator"]
    learning = network.parameter_count()
    frozen = sum(p.numel() for p in network.module.parameters()) - learning
    assert memory(task="autoencoder", train__freeze=["encoder"]).weights == 4 * (5 * learning + 2 * frozen)
    assert memory(task="autoencoder", train__freeze=["encoder"]).activations < memory(task="autoencoder").activations


def test_weights_and_pools_of_cyclegan() -> None:
    """The way back has no EMA. Each of 4 places keeps 3 colour images and 3 grey ones, of 32 x 32 pixels."""
    counts = {name: each.parameter_count() for name, each in build_task(tiny(task="cyclegan")).networks.items()}
    expected = 5 * counts.pop("generator") + 4 * sum(counts.values()) + 4 * 3 * (3 + 1) * 32 * 32
    assert memory(task="cyclegan").weights == 4 * expected
    assert memory(task="cyclegan").activations > 2 * memory(task="autoencoder").activations


@pytest.mark.parametrize("more", [{}, {"model__blocks": 2}, {"model__attention_level": 0}], ids=str)
def test_activations_are_what_autograd_keeps(more: dict[str, object]) -> None:
    config = tiny(task="autoencoder", **more)
    network, kept = build_generator(config.model), {}
    parameters = {parameter.data_ptr() for parameter in network.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in parameters:
            kept[tensor.data_ptr()] = tensor  # held, so that no address is given out twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        answer = network(torch.zeros(4, 1, 32, 32))
    assert answer.requires_grad
    bytes_kept = sum(tensor.numel() * tensor.element_size() for tensor in kept.values())
    assert memory(task="autoencoder", **more).activations == pytest.approx(bytes_kept, rel=0.1)


def test_a_penalty_keeps_the_graph_of_a_gradient() -> None:
    plain, penalised = memory().activations, memory(loss__r2_weight=1.0).activations
    assert 1.1 * plain < penalised < 3 * plain


def test_further_answers_need_further_activations() -> None:
    one, four = (memory(task="autoencoder", model__noise=2, loss__draws=draws).activations for draws in (1, 4))
    assert one < four < 4 * one  # the encoder runs once


def test_activations_follow_what_is_computed_at_once() -> None:
    whole = memory(train__global_batch_size=8)
    assert memory(train__global_batch_size=16).activations == 2 * whole.activations
    assert memory(train__global_batch_size=16, train__micro_batch_size=4).activations < whole.activations
    assert memory(train__global_batch_size=8, train__precision="bf16").activations == whole.activations / 2
    assert "MiB" in str(whole)
