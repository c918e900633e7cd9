"""Learning rates and averaged weights, worked by hand; and a network that continues where it stopped."""

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from colordist.engine.network import EMA, Network, learning_rate
from colordist.models.discriminator import Discriminator, PatchGANSettings
from colordist.optimizers import OptimizerConfig

# --- learning rate


def rates(config: OptimizerConfig, steps: int) -> list[float]:
    return [learning_rate(config, step, steps) for step in range(steps)]


def test_constant() -> None:
    assert rates(OptimizerConfig(lr=0.5, schedule="constant", warmup_steps=0), 3) == [0.5, 0.5, 0.5]


def test_linear_falls_to_zero_after_the_last_step() -> None:
    config = OptimizerConfig(lr=0.8, schedule="linear", warmup_steps=0)
    assert rates(config, 4) == pytest.approx([0.8, 0.6, 0.4, 0.2])
    assert learning_rate(config, 4, 4) == 0


def test_cosine() -> None:
    config = OptimizerConfig(lr=2.0, schedule="cosine", warmup_steps=0)
    # 1 + cos of 0, 45, 90, 135 degrees.
    root = math.sqrt(0.5)
    assert rates(config, 4) == pytest.approx([2, 1 + root, 1, 1 - root])
    assert learning_rate(config, 4, 4) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_warm_up_rises_to_the_schedule(schedule: str) -> None:
    config = OptimizerConfig(lr=1.0, schedule=schedule, warmup_steps=3)  # type: ignore[arg-type]
    # Quarters up to the highest rate at step 3; from there 2 steps of the schedule, the second of them half way.
    second = {"constant": 1, "linear": 0.5, "cosine": 0.5}[schedule]
    assert rates(config, 5) == pytest.approx([0.25, 0.5, 0.75, 1, second])


def test_warm_up_longer_than_the_run() -> None:
    config = OptimizerConfig(lr=1.0, schedule="linear", warmup_steps=9)
    assert rates(config, 3) == pytest.approx([0.1, 0.2, 0.3])


optimizers = st.builds(
    OptimizerConfig,
    lr=st.floats(1e-8, 10),
    schedule=st.sampled_from(["constant", "linear", "cosine"]),
    warmup_steps=st.integers(0, 50),
)


@given(config=optimizers, steps=st.integers(1, 100), step=st.integers(0, 99))
def test_never_above_the_highest_rate_and_never_negative(config: OptimizerConfig, steps: int, step: int) -> None:
    rate = learning_rate(config, step % steps, steps)
    assert 0 < rate <= config.lr
    assert rate == learning_rate(config, step % steps, steps)


@given(config=optimizers, steps=st.integers(1, 100))
def test_rises_then_falls(config: OptimizerConfig, steps: int) -> None:
    values = rates(config, steps)
    top = min(config.warmup_steps, steps - 1)
    assert values[: top + 1] == sorted(values[: top + 1])
    assert values[top:] == sorted(values[top:], reverse=True)


# --- averaged weights


def constant(value: float) -> nn.Linear:
    """A module all of whose weights have one value."""
    module = nn.Linear(3, 2).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(value)
    return module


def weights(module: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


@pytest.mark.parametrize("batch", [1, 4, 50, 100])
def test_after_a_half_life_the_old_weights_count_half(batch: int) -> None:
    ema = EMA(constant(0), half_life=100)
    for _ in range(100 // batch):
        ema.update(constant(1), images=10_000, batch=batch)  # a twentieth of that is above 100: the ramp is over
    assert torch.allclose(weights(ema.module), torch.tensor(0.5, dtype=torch.float64))


def test_ramp() -> None:
    # Half-life is a twentieth of the 100 images seen: 5. A batch of 10 is two half-lives: a quarter of the old is left.
    ema = EMA(constant(0), half_life=1000)
    ema.update(constant(1), images=100, batch=10)
    assert torch.allclose(weights(ema.module), torch.tensor(0.75, dtype=torch.float64))


def test_ramp_forgets_the_start() -> None:
    ema = EMA(constant(1e6), half_life=10**9)
    for step in range(1, 101):
        ema.update(constant(1), images=4 * step, batch=4)
    # In each step at least (1/2)**20 / step of the old goes by; the first step alone leaves a millionth.
    assert (weights(ema.module) - 1).abs().max() < 1e-3


def test_half_life_zero_is_a_plain_copy() -> None:
    torch.manual_seed(0)
    module = nn.Linear(7, 5)
    ema = EMA(nn.Linear(7, 5), half_life=0)
    ema.update(module, images=4, batch=4)
    assert torch.equal(weights(ema.module), weights(module))


def test_average_does_not_learn_and_is_ready_to_be_used() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    ema = EMA(module, half_life=10)
    assert not ema.module.training
    assert module.training
    assert not any(parameter.requires_grad for parameter in ema.module.parameters())
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_buffers_are_copied() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    ema = EMA(module, half_life=1000)
    module(torch.randn(4, 1, 3, 3) + 5)
    ema.update(module, images=4, batch=4)
    copied, buffers = dict(ema.module.named_buffers()), dict(module.named_buffers())
    assert copied.keys() == buffers.keys() == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert all(torch.equal(value, buffers[key]) for key, value in copied.items())
    assert copied["1.num_batches_tracked"] == 1


# --- a network


def new_network(steps: int = 6) -> Network:
    torch.manual_seed(1)
    module = Discriminator(PatchGANSettings(width=4, depth=1, spectral_norm=True), inputs=3)
    return Network(module, OptimizerConfig(lr=0.01, warmup_steps=2), steps, ema_images=8)


def learn(network: Network, steps: range) -> None:
    for step in steps:
        random = torch.Generator().manual_seed(step)
        grey, color = (torch.randn(4, count, 8, 8, generator=random) for count in (1, 2))
        network.begin_phase(step)
        network.module(grey, color).square().mean().backward()
        network.optimizer.step()
        assert network.ema is not None
        network.ema.update(network.module, images=(step + 1) * 4, batch=4)


def flat_state(network: Network) -> dict[str, Tensor]:
    state = network.state_dict()
    flat = {f"{part}/{key}": value for part in ("module", "ema") for key, value in state[part].items()}
    for number, values in state["optimizer"]["state"].items():
        flat |= {f"optimizer/{number}/{key}": torch.as_tensor(value) for key, value in values.items()}
    return flat


def test_continues_bit_equal() -> None:
    straight = new_network()
    learn(straight, range(6))

    first = new_network()
    learn(first, range(3))
    saved = copy.deepcopy(first.state_dict())
    torch.manual_seed(99)
    second = Network(copy.deepcopy(new_network().module), first.config, 6, ema_images=8)
    with torch.no_grad():
        for parameter in second.module.parameters():
            parameter.add_(1)
    second.load_state_dict(saved)
    learn(second, range(3, 6))

    expected, found = flat_state(straight), flat_state(second)
    assert expected.keys() == found.keys()
    assert all(torch.equal(value, found[key]) for key, value in expected.items())
    assert any(key.startswith("optimizer/") for key in expected)
    assert not torch.equal(expected["module/layers.0.bias"], expected["ema/layers.0.bias"])


def test_continues_bit_equal_where_weights_lie_otherwise_in_memory() -> None:
    """As those of one engine do when another continues."""

    def convolutions(memory_format: torch.memory_format) -> Network:
        torch.manual_seed(0)
        module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3)).to(memory_format=memory_format)
        return Network(module, OptimizerConfig(), 6)

    def update(network: Network) -> dict[str, Tensor]:
        network.begin_phase(0)
        for number, parameter in enumerate(network.module.parameters()):
            values = torch.arange(parameter.numel(), dtype=parameter.dtype).view(parameter.shape).sub(number + 3)
            parameter.grad = torch.empty_like(parameter).copy_(values)
        network.optimizer.step()
        return network.module.state_dict()

    first, second = convolutions(torch.contiguous_format), convolutions(torch.channels_last)
    update(first)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    expected = update(first)
    assert all(torch.equal(value, expected[key]) for key, value in update(second).items())


def test_state_of_another_network_is_refused() -> None:
    other = Network(nn.Linear(3, 2), OptimizerConfig(), 6)
    with pytest.raises(Exception, match=r"size mismatch|Missing key"):
        new_network().load_state_dict(other.state_dict())


def test_a_turn_begins_with_the_steps_rate_and_no_gradients() -> None:
    network = new_network(steps=10)
    learn(network, range(1))
    vectors = {key: value.clone() for key, value in network.module.state_dict().items() if key.endswith(".columns")}
    network.begin_phase(7)
    assert [group["lr"] for group in network.optimizer.param_groups] == [learning_rate(network.config, 7, 10)]
    assert all(parameter.grad is None for parameter in network.module.parameters())
    now = network.module.state_dict()
    assert vectors
    assert all(not torch.equal(value, now[key]) for key, value in vectors.items())  # one power iteration


def test_parameter_count() -> None:
    # 3 * 2 weights and 2 biases.
    assert Network(nn.Linear(3, 2), OptimizerConfig(), 1).trainable_parameter_count() == 8


def test_adam_gets_its_settings() -> None:
    network = Network(nn.Linear(3, 2), OptimizerConfig(beta1=0.25, beta2=0.75), 1)
    assert network.optimizer.param_groups[0]["betas"] == (0.25, 0.75)
    assert network.ema is None
