"""The estimate of memory, against counts by hand and against what autograd really keeps."""

import pytest
import torch
from helpers import tiny

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


def test_activations_are_what_autograd_keeps() -> None:
    config = tiny(task="autoencoder")
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
    assert memory(task="autoencoder").activations == pytest.approx(bytes_kept, rel=0.1)


def test_activations_follow_what_is_computed_at_once() -> None:
    whole = memory(train__global_batch_size=8)
    assert memory(train__global_batch_size=16).activations == 2 * whole.activations
    assert memory(train__global_batch_size=16, train__micro_batch_size=4).activations < whole.activations
    assert memory(train__global_batch_size=8, train__precision="bf16").activations == whole.activations / 2
    assert "MiB" in str(whole)
