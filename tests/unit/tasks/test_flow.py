"""Flow matching: the loss by hand, solvers on velocities that are known, and where noise comes from."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers import batch_of, config_with
from torch import Tensor

from colordist.errors import UserError
from colordist.models.unet import UNetSettings
from colordist.tasks.flow import FlowSettings, FlowTask


def flow(**settings: Any) -> FlowTask:  # noqa: ANN401  any setting
    return FlowTask(FlowSettings(**settings), UNetSettings())


def solve(velocity: Callable[[Tensor, Tensor], Tensor], start: Tensor, **settings: Any) -> Tensor:  # noqa: ANN401
    """Follow a velocity of colours [B, 2, H, W] and times [B] from a start."""

    def network(image: Tensor, time: Tensor) -> Tensor:
        return velocity(image[:, 1:], time) + image[:, 1:]

    grey = torch.zeros(len(start), 1, *start.shape[2:], dtype=start.dtype)
    return flow(**settings).sample({"generator": network}, grey, start)


def test_the_loss_is_that_of_the_velocity_on_the_straight_path() -> None:
    """Noise 1 and 3, target 2 and -1, at times 0.5 and 0.25: on the path 1.5 and 2, velocities 1 and -4.

    A network that returns 0 has the velocities -1.5 and -2.
    """
    batch = batch_of(torch.zeros(2, 1, 1, 1), torch.tensor([2.0, -1.0]).view(2, 1, 1, 1).expand(2, 2, 1, 1))
    batch.noise.resize_(2, 1, 2, 1, 1)[:] = torch.tensor([1.0, 3.0]).view(2, 1, 1, 1, 1)
    batch.uniforms[:, 0] = torch.tensor([0.5, 0.25])
    seen: dict[str, Tensor] = {}

    def network(image: Tensor, time: Tensor) -> Tensor:
        seen.update(image=image, time=time)
        return torch.zeros_like(image[:, 1:])

    loss = flow(time="uniform").loss("generator", {"generator": network}, batch, None, step=0)
    assert seen["time"].tolist() == [0.5, 0.25]
    assert seen["image"].flatten(1).tolist() == [[0, 1.5, 1.5], [0, 2, 2]]
    assert loss.total.item() == pytest.approx((2.5**2 + 2**2) / 2)


def test_logit_normal_times() -> None:
    """The quantile at which the normal distribution has one standard deviation becomes the logistic function of 1."""
    uniform = torch.tensor([0.0, 0.5, 0.8413447, 1 - 2.0**-24])
    time = flow()._times(uniform)
    assert time.isfinite().all()
    assert time[1:3].tolist() == pytest.approx([0.5, 1 / (1 + math.exp(-1))], abs=1e-6)
    assert 0 < time[0] < 0.01
    assert 0.99 < time[3] <= 1


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_straight_paths_are_followed_exactly(solver: str) -> None:
    start = torch.randn(3, 2, 2, 2)
    found = solve(lambda color, time: torch.full_like(color, 2.5), start, solver=solver, solver_steps=3)
    torch.testing.assert_close(found, start + 2.5)


def test_the_order_of_the_solvers() -> None:
    """On x' = -x a step of size h multiplies by 1 - h (Euler) or 1 - h + h^2 / 2 (Heun, but at its last step)."""
    start = torch.ones(1, 2, 1, 1, dtype=torch.float64)
    for solver, expected in (("euler", (1 - 1 / 5) ** 5), ("heun", (1 - 1 / 5 + 1 / 50) ** 4 * (1 - 1 / 5))):
        found = solve(lambda color, time: -color, start, solver=solver, solver_steps=5)
        assert found.flatten().tolist() == pytest.approx([expected] * 2)


def test_times_of_the_network_evaluations() -> None:
    times: list[float] = []

    def velocity(color: Tensor, time: Tensor) -> Tensor:
        times.append(time.item())
        return color

    for solver, expected in (("euler", [0, 0.5]), ("heun", [0, 0.5, 0.5])):
        times.clear()
        solve(velocity, torch.ones(1, 2, 1, 1), solver=solver, solver_steps=2)
        assert times == expected


def test_shifted_times() -> None:
    """By 3: the middle of the way is at 0.5 / (0.5 + 3 * 0.5), in training and for the solver."""
    assert flow(shift=3.0, time="uniform")._times(torch.tensor([0.0, 0.5, 1.0])).tolist() == [0, 0.25, 1]
    times: list[float] = []

    def velocity(color: Tensor, time: Tensor) -> Tensor:
        times.append(time.item())
        return torch.ones_like(color)

    found = solve(velocity, torch.zeros(1, 2, 1, 1), shift=3.0, solver="euler", solver_steps=2)
    assert times == [0, 0.25]
    assert found.flatten().tolist() == [1, 1]


def test_two_equally_probable_colours_come_out_half_the_time_each() -> None:
    """The optimal velocity of targets -1 and 1: towards their mean given x, tanh(t x / (1 - t)^2)."""

    def velocity(color: Tensor, time: Tensor) -> Tensor:
        left = 1 - time.view(-1, 1, 1, 1)
        return (torch.tanh((1 - left) * color / left**2) - color) / left

    start = torch.randn(1, 2, 100, 100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = solve(velocity, start, solver_steps=32)
    assert ((found.abs() - 1).abs() < 0.01).double().mean() > 0.99
    assert abs((found > 0).double().mean() - 0.5) < 4 * 0.5 / math.sqrt(20_000)


def test_what_depends_on_grey_alone_is_computed_once_per_image() -> None:
    class Network:
        def encode_grey(self, grey: Tensor) -> list[Tensor]:
            assert len(grey) == 2
            return [10 * grey]

        def __call__(self, image: Tensor, time: Tensor, features: list[Tensor]) -> Tensor:
            torch.testing.assert_close(features[0], 10 * image[:, :1])  # each sample has those of its image
            return image[:, 1:]

    grey = torch.rand(2, 1, 2, 2)
    noise = torch.randn(6, 2, 2, 2)
    assert torch.equal(flow().sample({"generator": Network()}, grey, noise), noise)


def test_noise_follows_from_the_pixels_the_variant_and_the_seed() -> None:
    task, grey = flow(), torch.arange(256).float().view(2, 1, 8, 16) / 127.5 - 1
    noise = task.variant_noise(0, grey)
    assert noise.shape == (2, 2, 8, 16)
    assert torch.equal(task.variant_noise(0, grey[1:]), noise[1:])  # whatever it is coloured with
    others = [task.variant_noise(1, grey), task.variant_noise(0, grey, seed=1), task.variant_noise(0, grey.flip(3))]
    everything = torch.stack([noise, *others])
    assert len(everything.unique()) > 0.99 * everything.numel()


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"model.name": "autoencoder"}, "model.name autoencoder has no time input, which task flow needs"),
        ({"model.noise": 3}, "model.noise is 3, but task flow draws noise of its own: try model.noise 0"),
        ({"task.solver_steps": 0}, "task.solver_steps is 0, but must be at least 1"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line):
        config_with({"task.name": "flow"} | settings)
