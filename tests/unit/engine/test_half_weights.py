"""Weights that are cast together: the bits of autocast, also after an update."""

import copy

import pytest
import torch
from torch import Tensor, nn

from colordist.engine.half_weights import cast_weights_together
from colordist.models.blocks import ConvBlock
from colordist.models.spectral_norm import add_spectral_norm


def network(*, spectral: bool) -> nn.Sequential:
    torch.manual_seed(0)
    module = nn.Sequential(ConvBlock(2, 4, "group"), ConvBlock(4, 4, "instance"), nn.Flatten(), nn.Linear(64, 3))
    if spectral:
        add_spectral_norm(module)
    return module.to(memory_format=torch.channels_last)


IMAGE = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(1))


def run(module: nn.Module) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        output: Tensor = module(IMAGE)
    return output


@pytest.mark.parametrize("spectral", [False, True])
@pytest.mark.parametrize("trained", [False, True])
def test_outputs_and_gradients_are_those_of_autocast(spectral: bool, trained: bool) -> None:
    modules = [network(spectral=spectral) for _ in range(2)]
    cast_weights_together(modules[1], trained=trained)
    outputs = [run(module) for module in modules]
    assert torch.equal(*outputs)
    for output in outputs:
        output.square().sum().backward()
    for one, other in zip(*(module.parameters() for module in modules), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.equal(one.grad, other.grad)
    assert [*modules[0].state_dict()] == [*modules[1].state_dict()]


def test_casts_of_a_frozen_module_follow_its_updates() -> None:
    module = network(spectral=False)
    plain = copy.deepcopy(module)
    cast_weights_together(module)
    optimizers = [torch.optim.Adam(each.parameters(), lr=0.1, fused=True) for each in (module, plain)]
    for _ in range(2):
        for each, optimizer in zip((module, plain), optimizers, strict=True):
            each.requires_grad_(True)
            optimizer.zero_grad()
            run(each).sum().backward()
            with torch.no_grad():
                run(each)  # not kept
            optimizer.step()
            each.requires_grad_(False)
        assert torch.equal(run(module), run(plain))
        assert torch.equal(run(module), run(plain))  # from the kept ones


def test_frozen_and_unused_weights_get_no_gradient() -> None:
    module = network(spectral=False)
    module[0].requires_grad_(False)
    module.append(nn.Linear(3, 3))
    cast_weights_together(module)
    unused = module.pop(4)
    run(module).sum().backward()
    frozen = [*module[0].parameters(), *unused.parameters()]
    assert all(each.grad is None for each in frozen)
    assert all(each.grad is not None for each in module[1:].parameters())


def test_a_copy_has_weights_of_its_own() -> None:
    module = network(spectral=False)
    cast_weights_together(module)
    other = copy.deepcopy(module)
    with torch.no_grad():
        dict(other.named_parameters())["3.bias"].add_(1)
    assert torch.allclose(run(other), run(module) + 1, atol=0.1)


def test_without_autocast_nothing_is_cast() -> None:
    module = network(spectral=False)
    cast_weights_together(module)
    assert module(IMAGE).dtype == torch.float32
