"""The networks: shapes, the start from grey, what learns, and spectral normalisation against the exact one."""

import copy
from itertools import pairwise
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from colordist.color import ColorSpace
from colordist.config import GeneratorSettings
from colordist.models.autoencoder import AutoencoderSettings
from colordist.models.blocks import (
    Norm,
    ResidualBlock,
    SelfAttention,
    level_widths,
)
from colordist.models.discriminator import Discriminator, PatchGANSettings
from colordist.models.factory import build_generator
from colordist.models.spectral_norm import SpectralNorm, add_spectral_norm, iterate, iterate_spectral_norm
from colordist.models.unet import UNetSettings

ARCHITECTURES = ("unet", "autoencoder")
NORMS: tuple[Norm, ...] = ("group", "instance", "none")


def generator(name: str = "unet", **settings: Any) -> nn.Module:  # noqa: ANN401  any setting
    kind: type[GeneratorSettings] = UNetSettings if name == "unet" else AutoencoderSettings
    return build_generator(kind(name=name, **settings))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def discriminator(
    norm: Norm = "none",
    output: Literal["patch", "image"] = "patch",
    depth: int = 2,
    *,
    width: int = 4,
    spectral_norm: bool = False,
) -> nn.Module:
    torch.manual_seed(0)
    settings = PatchGANSettings(width=width, depth=depth, norm=norm, output=output, spectral_norm=spectral_norm)
    return Discriminator(settings, inputs=3)


# --- generators


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("space", ["lab", "rgb"])
@pytest.mark.parametrize(("depth", "size"), [(1, (2, 2)), (1, (6, 4)), (2, (8, 20)), (3, (24, 16)), (4, (32, 32))])
def test_answer_is_as_large_as_the_question(
    name: str, space: Literal["lab", "rgb"], depth: int, size: tuple[int, int]
) -> None:
    network = generator(name, color_space=space, width=4, depth=depth)
    channels = {"lab": 2, "rgb": 3}[space]
    assert network(noise(2, 1, *size)).shape == (2, channels, *size)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("bottleneck", [None, 5])
def test_every_norm_and_bottleneck(name: str, norm: Norm, bottleneck: int | None) -> None:
    # Odd widths too: groups must divide them.
    network = generator(name, width=6, depth=2, norm=norm, bottleneck=bottleneck)
    set_trainable(network)
    answer = network(noise(3, 1, 8, 12))
    assert answer.shape == (3, 2, 8, 12)
    assert answer.isfinite().all()


def set_trainable(network: nn.Module) -> None:
    """Fill what starts at zero, so that an answer depends on the question."""
    with torch.no_grad():
        for number, parameter in enumerate(network.parameters()):
            if not parameter.any():
                parameter.copy_(noise(*parameter.shape, seed=number))


# --- noise


def test_noise_gives_several_answers_to_each_image() -> None:
    network = generator(width=4, depth=2, noise=3)
    images, drawn = noise(2, 1, 8, 12), torch.eye(3).repeat(2, 1)
    assert not network(images, drawn).any()  # grey at first
    set_trainable(network)
    answers = network(images, drawn)
    assert answers.shape == (6, 2, 8, 12)
    one_by_one = [network(images[[each // 3]], drawn[[each]])[0] for each in range(6)]
    torch.testing.assert_close(answers, torch.stack(one_by_one))
    assert all(not torch.allclose(answers[0], answers[draw]) for draw in (1, 2))
    among = torch.tensor([[0.3, -1.0, 0.2]] * 2 + [[-2.0, -0.1, -0.5]] * 4)  # the largest decides, nothing else
    torch.testing.assert_close(network(images, among), answers[[0, 0, 1, 4, 4, 4]])


def test_noise_leaves_the_other_weights_as_they_are() -> None:
    networks = []
    for numbers in (0, 3):
        torch.manual_seed(0)
        networks.append(generator(width=4, depth=2, noise=numbers).state_dict())
    without, with_noise = networks
    assert {name.split(".")[0] for name in with_noise.keys() - without.keys()} == {"modulate"}
    assert all(torch.equal(value, with_noise[name]) for name, value in without.items())


# --- residual blocks and attention

REFINED = [(1, None), (2, None), (0, 0), (0, 2), (1, 1)]
"""Residual blocks, and the level of attention."""


@pytest.mark.parametrize(("blocks", "level"), REFINED)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("size", [(8, 8), (12, 20)])
def test_refined_networks_answer_grey_at_first(
    blocks: int, level: int | None, norm: Norm, size: tuple[int, int]
) -> None:
    network = generator(width=6, depth=2, bottleneck=5, norm=norm, blocks=blocks, attention_level=level)
    assert torch.equal(network(noise(3, 1, *size)), torch.zeros(3, 2, *size))
    set_trainable(network)
    answer = network(noise(3, 1, *size))
    assert answer.isfinite().all()
    assert answer.std() > 0


@pytest.mark.parametrize("layer", [ResidualBlock(6, "group"), ResidualBlock(6, "none"), SelfAttention(6)])
def test_what_refines_begins_as_the_identity(layer: nn.Module) -> None:
    x = noise(2, 6, 5, 3)
    assert torch.equal(layer(x), x)
    set_trainable(layer)
    assert layer(x).shape == x.shape
    assert not torch.allclose(layer(x), x)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_blocks_and_attention_are_where_they_are_said_to_be(level: int) -> None:
    """Once down and once up at each level, but for the lowest, where the way turns; widths are 4, 8 and 16."""
    network = generator(width=4, depth=2, blocks=2, attention_level=level)
    seen: list[tuple[type, torch.Size]] = []
    for module in network.modules():
        if isinstance(module, ResidualBlock | SelfAttention):
            module.register_forward_hook(lambda module, _, answer: seen.append((type(module), answer.shape[1:])))
    network(noise(1, 1, 8, 12))
    shapes = [torch.Size((4 * 2**each, 8 // 2**each, 12 // 2**each)) for each in (0, 1, 2, 1, 0)]
    assert [shape for kind, shape in seen if kind is ResidualBlock] == [each for each in shapes for _ in range(2)]
    expected = [shape for shape, each in zip(shapes, (0, 1, 2, 1, 0), strict=True) if each == level]
    assert [shape for kind, shape in seen if kind is SelfAttention] == expected


def test_attention_by_hand() -> None:
    """Each pixel takes the mean of all values, weighed by the softmax of its products with all keys."""
    layer = SelfAttention(4).double()
    set_trainable(layer)
    x = noise(2, 4, 3, 5).double()
    inward, outward = layer.inward.weight.flatten(1), layer.outward.weight.flatten(1)
    assert layer.outward.bias is not None
    for image, answer in zip(layer.norm(x).flatten(2), (layer(x) - x).flatten(2), strict=True):
        query, key, value = (inward @ image).chunk(3)
        weights = (query.T @ key / 2).softmax(dim=1)  # divided by the root of 4 channels
        taken = outward @ (value @ weights.T) + layer.outward.bias[:, None]
        assert torch.allclose(answer, taken, atol=1e-12)


@pytest.mark.parametrize(("blocks", "level"), REFINED)
@pytest.mark.parametrize("norm", ["group", "instance", "none"])
def test_refined_networks_learn_everywhere(blocks: int, level: int | None, norm: Norm) -> None:
    torch.manual_seed(0)
    network = generator(width=16, depth=2, norm=norm, blocks=blocks, attention_level=level).double()
    set_trainable(network)
    (network(noise(4, 1, 16, 16).double()) - noise(4, 2, 16, 16, seed=1).double()).square().mean().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().max() > ROUNDING, key


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_new_network_answers_grey(name: str) -> None:
    grey = noise(2, 1, 8, 8).clamp(-1, 1)
    answer = generator(name, width=4, depth=1)(grey)
    assert torch.equal(answer, torch.zeros(2, 2, 8, 8))
    picture = ColorSpace("lab").join(grey, answer)
    assert (picture - (grey + 1) / 2).abs().max() < 1e-3


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("norm", ["group", "instance", "none"])
def test_images_of_a_batch_do_not_see_each_other(name: str, norm: Norm) -> None:
    network = generator(name, width=4, depth=2, norm=norm).double()
    set_trainable(network)
    grey = noise(3, 1, 16, 16).double()
    alone = torch.cat([network(image[None]) for image in grey])
    assert (network(grey) - alone).abs().max() < 1e-10
    assert (alone[0] - alone[1]).abs().max() > 1e-5  # but each sees its own


@pytest.mark.parametrize("norm", ["group", "instance", "none"])
@pytest.mark.parametrize("blocks", [0, 1])
@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_images_teach_alone_what_they_teach_together(norm: Norm, blocks: int, network: str) -> None:
    """Torch's instance normalisation has a wrong gradient for one image in channels_last."""
    if network == "generator":
        module = generator(width=4, depth=2, norm=norm, blocks=blocks, attention_level=2)
        inputs: tuple[Tensor, ...] = (noise(3, 1, 16, 16).double(),)
    else:
        module = discriminator(norm)
        inputs = noise(3, 1, 16, 16).double(), noise(3, 2, 16, 16, seed=1).double()
    set_trainable(module)
    module = module.to(dtype=torch.float64, memory_format=torch.channels_last)  # type: ignore[call-overload]
    gradients = []
    for parts in ([slice(0, 3)], [slice(0, 1), slice(1, 3)], [slice(0, 2), slice(2, 3)]):
        module.zero_grad()
        for part in parts:
            module(*(each[part] for each in inputs)).pow(3).sum().backward()
        gradients.append([parameter.grad.clone() for parameter in module.parameters()])
    for both, *alone in zip(*gradients, strict=True):
        assert all((each - both).norm() <= 1e-10 * both.norm() for each in alone)


def bias_free_convolutions(network: nn.Module) -> tuple[int, int]:
    """How many convolutions stand before instance normalisation, and how many of them have no bias."""
    before = none = 0
    for module in network.modules():
        if isinstance(module, nn.Sequential):
            layers = list(module)
            for layer, following in pairwise(layers):
                if isinstance(layer, nn.Conv2d) and isinstance(following, nn.InstanceNorm2d):
                    before += 1
                    none += layer.bias is None
    return before, none


def test_no_bias_where_a_norm_subtracts_it() -> None:
    networks = [generator(name, width=4, depth=2, norm="instance") for name in ARCHITECTURES]
    for network in [*networks, discriminator("instance")]:
        before, none = bias_free_convolutions(network)
        layers = sum(isinstance(m, nn.InstanceNorm2d) for m in network.modules())
        assert before == none == layers > 0
        assert any(isinstance(m, nn.Conv2d) and m.bias is not None for m in network.modules())  # the last one, say


ROUNDING = 1e-14
"""A gradient below this is what rounding leaves of one that is zero, as that of a bias before a norm."""


@pytest.mark.parametrize(
    ("norm", "width"),
    [("group", 16), ("instance", 4), ("none", 4), ("group", 8)],
)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_parameter_of_a_generator_learns(name: str, norm: Norm, width: int) -> None:
    torch.manual_seed(0)
    network = generator(name, width=width, depth=2, norm=norm).double()
    grey, target = noise(4, 1, 16, 16).double(), noise(4, 2, 16, 16, seed=1).double()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(2):  # the last layer starts at zero and lets nothing through in the first step
        optimizer.zero_grad()
        (network(grey) - target).square().mean().backward()
        optimizer.step()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().max() > ROUNDING, key


@pytest.mark.parametrize(
    ("width", "depth", "bottleneck", "widths"),
    [
        (4, 2, None, [4, 8, 16]),
        (4, 5, None, [4, 8, 16, 32, 32, 32]),  # up to eight times the first
        (4, 2, 3, [4, 8, 3]),
    ],
)
def test_level_widths(width: int, depth: int, bottleneck: int | None, widths: list[int]) -> None:
    assert level_widths(width, depth, bottleneck) == widths


# --- discriminator


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("spectral_norm", [False, True])
@pytest.mark.parametrize(("depth", "size"), [(1, (4, 6)), (3, (16, 32))])
def test_one_logit_a_patch_or_an_image(norm: Norm, depth: int, size: tuple[int, int], spectral_norm: bool) -> None:
    grey, color = noise(2, 1, *size), noise(2, 2, *size, seed=1)
    patches = discriminator(norm, "patch", depth, spectral_norm=spectral_norm)(grey, color)
    assert patches.shape == (2, 1, size[0] // 2**depth, size[1] // 2**depth)
    image = discriminator(norm, "image", depth, spectral_norm=spectral_norm)(grey, color)
    assert image.shape == (2, 1)
    # The same seed, so the same weights: an image's logit is the mean of its patches'.
    assert torch.allclose(image, patches.mean(dim=(2, 3)), atol=1e-5)


@pytest.mark.parametrize("spectral_norm", [False, True])
def test_without_an_offset_no_weight_adds_the_same_to_all_logits(spectral_norm: bool) -> None:
    """Its gradient would be rounding noise where only differences of logits count."""
    torch.manual_seed(0)
    network = Discriminator(PatchGANSettings(width=16, depth=2, spectral_norm=spectral_norm), inputs=3, bias=False)
    network.double()
    grey, color = noise(4, 1, 16, 16).double(), noise(4, 2, 16, 16, seed=1).double()
    real, fake = network(grey, color), network(grey, -color)
    nn.functional.softplus(fake - real).mean().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().max() > ROUNDING, key


def test_discriminator_sees_grey_and_color() -> None:
    network = discriminator()
    grey, color = noise(1, 1, 8, 8), noise(1, 2, 8, 8, seed=1)
    assert not torch.equal(network(grey, color), network(grey + 1, color))
    assert not torch.equal(network(grey, color), network(grey, color + 1))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("spectral_norm", [False, True])
def test_every_parameter_of_a_discriminator_learns(norm: Norm, spectral_norm: bool) -> None:
    network = discriminator(norm, width=16, spectral_norm=spectral_norm).double()
    network(noise(4, 1, 16, 16).double(), noise(4, 2, 16, 16, seed=1).double()).square().mean().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().max() > ROUNDING, key


def test_discriminator_leaves_its_inputs_alone() -> None:
    grey, color = noise(1, 1, 8, 8), noise(1, 2, 8, 8, seed=1)
    before = grey.clone(), color.clone()
    discriminator()(grey, color)  # activations work in place
    assert torch.equal(grey, before[0])
    assert torch.equal(color, before[1])


# --- spectral normalisation


@pytest.mark.parametrize("shape", [(7, 3, 3, 3), (1, 5, 4, 4), (20, 2, 1, 1)])
def test_spectral_norm_finds_the_largest_singular_value(shape: tuple[int, ...]) -> None:
    weight, norm = noise(*shape).double(), SpectralNorm(noise(*shape)).double()
    exact = torch.linalg.matrix_norm(weight.flatten(1), ord=2)
    assert torch.allclose(norm(weight), weight / exact, rtol=0.05)  # near from the start
    for _ in range(3000):
        iterate([norm], [weight])
    assert torch.allclose(norm(weight), weight / exact, rtol=1e-9)
    assert torch.linalg.matrix_norm(norm(weight).flatten(1), ord=2).item() == pytest.approx(1, abs=1e-9)


def test_spectral_norm_follows_a_moving_weight() -> None:
    weight, target = noise(6, 4, 3, 3).double(), noise(6, 4, 3, 3, seed=1).double()
    norm = SpectralNorm(weight.float()).double()
    for step in range(300):  # one iteration a step, as in training
        weight = weight + 0.02 * (target - weight)
        iterate([norm], [weight])
        if step > 100:
            assert torch.linalg.matrix_norm(norm(weight).flatten(1), ord=2).item() == pytest.approx(1, abs=0.02)


def test_only_iterating_changes_the_state_of_spectral_norm() -> None:
    network = discriminator(spectral_norm=True)
    grey, color = noise(2, 1, 8, 8), noise(2, 2, 8, 8, seed=1)
    before = copy.deepcopy(network.state_dict())
    first = network(grey, color)
    first.mean().backward()
    assert torch.equal(network(grey, color), first)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())

    iterate_spectral_norm(network)
    after = network.state_dict()
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    vectors = {key for key in before if key.endswith((".left", ".columns"))}
    assert moved <= vectors
    # The last layer has a single output, so its vectors are exact from the start.
    last = max(vectors).rpartition(".")[0]
    assert moved >= {key for key in vectors if not key.startswith(last)}
    assert len(moved) >= 4


def test_spectral_norm_is_on_every_convolution() -> None:
    layers = [nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3)]
    network = nn.Sequential(layers[0], nn.Sequential(layers[1], nn.ReLU()))
    add_spectral_norm(network)
    for _ in range(500):
        iterate_spectral_norm(network)
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2).item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_gradient_is_that_of_the_quotient(memory_format: torch.memory_format) -> None:
    weight = noise(5, 3, 2, 4).double().contiguous(memory_format=memory_format).requires_grad_()
    gradient = noise(5, 3, 2, 4, seed=1).double()
    norm = SpectralNorm(weight.detach().float()).double()
    right = norm.columns.view(2, 4, 3).permute(2, 0, 1).flatten()
    quotient = weight / (norm.left @ weight.flatten(1) @ right)
    assert torch.allclose(norm(weight), quotient, rtol=1e-12)
    (expected,) = torch.autograd.grad(quotient, weight, gradient)
    (found,) = torch.autograd.grad(norm(weight), weight, gradient)
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_singular_vectors_of_older_checkpoints_are_reordered() -> None:
    weight = noise(5, 3, 2, 4)
    norm, loaded = SpectralNorm(weight), SpectralNorm(noise(5, 3, 2, 4, seed=1))
    right = norm.columns.view(2, 4, 3).permute(2, 0, 1).flatten()  # inputs first
    loaded.load_state_dict({"left": norm.left, "right": right})
    assert torch.equal(loaded(weight), norm(weight))


def test_gradient_passes_through_the_singular_value() -> None:
    # weight / sigma doesn't change when the weight is scaled, so its gradient is orthogonal to the weight.
    weight = noise(5, 3, 3, 3).double().requires_grad_()
    norm = SpectralNorm(weight.detach().float()).double()
    (norm(weight) * noise(5, 3, 3, 3, seed=2).double()).sum().backward()
    assert weight.grad is not None
    assert (weight.grad * weight).sum().abs() < 1e-10
    assert weight.grad.abs().max() > 1e-3
