"""Losses and phases, worked by hand on networks that always say the same."""

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import pytest
import torch
from helpers import batch_of, random_batch
from torch import Tensor, nn

from colordist.models.unet import UNetSettings
from colordist.tasks.autoencoder import AutoencoderSettings, AutoencoderTask
from colordist.tasks.candidates import best_by_region, first_candidate, generate_candidates
from colordist.tasks.cgan import CGANSettings, CGANTask
from colordist.tasks.losses import (
    bce,
    gradient_difference_loss,
    pixel_distance,
    relativistic,
    squared_gradient_norm,
)

Calls = Mapping[str, Callable[..., Tensor]]

# Two images of one pixel. Truth is 0; the answers below are 2 and -4 in every channel: mean |difference| 3, mean square
# (4 + 16) / 2 = 10.
BATCH = batch_of(torch.zeros(2, 1, 1, 1), torch.zeros(2, 2, 1, 1))


def answers() -> Tensor:
    return torch.tensor([2.0, -4.0]).view(2, 1, 1, 1).expand(2, 2, 1, 1).clone().requires_grad_()


def autoencoder(pixel: Literal["l1", "l2"] = "l1") -> AutoencoderTask:
    return AutoencoderTask(AutoencoderSettings(pixel=pixel), UNetSettings())


def cgan(**settings: Any) -> CGANTask:  # noqa: ANN401  any setting
    return CGANTask(CGANSettings(**{"warmup_steps": 0, "gradient_loss_weight": 0.0} | settings), UNetSettings())


def says(*logits: float) -> Calls:
    """A discriminator that says these logits, one an image, and takes part in the graph of the colours."""

    def discriminator(grey: Tensor, color: Tensor) -> Tensor:
        assert len(grey) == len(color) == len(logits)
        return torch.tensor(logits).view(-1, 1, 1, 1) + 0 * color.mean(dim=(1, 2, 3), keepdim=True)

    return {"discriminator": discriminator}


def softplus(x: float) -> float:
    """-log of the probability that a logit of -x stands for."""
    return math.log1p(math.exp(x))


# --- building blocks


def test_pixel_distances() -> None:
    assert pixel_distance("l1", answers(), BATCH.target).item() == pytest.approx(3)
    assert pixel_distance("l2", answers(), BATCH.target).item() == pytest.approx(10)


def test_cross_entropy() -> None:
    # A logit of 0 is a probability of one half, whatever the target.
    for target in (0, 0.3, 1):
        assert bce(torch.zeros(3, 1), target).item() == pytest.approx(math.log(2))
    # log 3 stands for 3/4: -log(3/4) if that is true, -log(1/4) if not.
    logit = torch.tensor([math.log(3)])
    assert bce(logit, 1).item() == pytest.approx(math.log(4 / 3))
    assert bce(logit, 0).item() == pytest.approx(math.log(4))
    assert bce(logit, 0.5).item() == pytest.approx((math.log(4 / 3) + math.log(4)) / 2)
    assert bce(torch.tensor([500.0]), 0).item() == pytest.approx(500)  # no overflow


def test_relativistic() -> None:
    # By how much the first of each pair lies above the second: 1, -2 and 0.
    found = relativistic(torch.tensor([4.0, 1.0, 7.0]), torch.tensor([3.0, 3.0, 7.0]))
    assert found.item() == pytest.approx((softplus(-1) + softplus(2) + math.log(2)) / 3)
    assert relativistic(torch.tensor([-500.0]), torch.tensor([500.0])).item() == pytest.approx(1000)  # no overflow


def test_squared_gradient_of_a_linear_discriminator() -> None:
    """Its weights are its gradient: (3, -4) at each of 6 pixels, over as many patches; so 6 * (9 + 16) / 36."""
    color = torch.randn(5, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([3.0, -4.0], dtype=torch.float64).view(1, 2, 1, 1)
    patches = nn.functional.conv2d(color, weight)
    assert squared_gradient_norm(patches, color).tolist() == pytest.approx([25 / 6] * 5)
    image = patches.mean(dim=(2, 3))  # the same logit, from a discriminator that says one an image
    assert squared_gradient_norm(image, color).tolist() == pytest.approx([25 / 6] * 5)


def test_squared_gradients_are_differentiable() -> None:
    """Of a/2 times the squared colours: the gradient is a times the colours, its square's slope 2 a times theirs."""
    color = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(2, 2, 1, 1).requires_grad_()
    a = torch.tensor(1.5, requires_grad=True)
    squares = squared_gradient_norm(a / 2 * color.square().sum(dim=1), color)
    assert squares.tolist() == pytest.approx([1.5**2 * 5, 1.5**2 * 25])
    squares.mean().backward()
    assert a.grad is not None
    assert a.grad.item() == pytest.approx(2 * 1.5 * 15)


# --- several answers to an image


def test_each_draw_of_noise_is_an_answer() -> None:
    batch = random_batch(2, noise=(3, 5))

    def generator(grey: Tensor, noise: Tensor) -> Tensor:
        assert grey is batch.grey
        return noise[:, :1, None, None]  # an answer that tells whose it is

    color = generate_candidates(generator, batch)
    assert color.flatten().tolist() == batch.noise[:, :, 0].flatten().tolist()
    assert first_candidate(color, batch).flatten().tolist() == batch.noise[:, 0, 0].tolist()


@pytest.mark.parametrize(("pixel", "taken"), [("l1", 0), ("l2", 1)])
def test_the_nearest_answer_region_by_region(pixel: Literal["l1", "l2"], taken: int) -> None:
    """Truth is 0, regions are of 2 x 2 pixels. At the left the first answer misses one pixel of four by 4, the second
    misses all by 1.5: means 1 against 1.5, mean squares 4 against 2.25. At the right 5 against 4."""
    batch = batch_of(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8))
    color = torch.empty(2, 1, 8, 8)
    color[0, :, :, :4] = torch.tensor([[4.0, 0.0], [0.0, 0.0]]).repeat(4, 2)
    color[1, :, :, :4] = 1.5
    color[:, :, :, 4:] = torch.tensor([5.0, 4.0]).view(2, 1, 1, 1)
    color.requires_grad_()
    near = best_by_region(pixel, color, batch)
    assert torch.equal(near[0], torch.cat([color[taken, :, :, :4], color[1, :, :, 4:]], dim=-1))

    autoencoder(pixel).loss("generator", {}, batch, color, step=0).total.backward()
    assert color.grad is not None
    assert not color.grad[1 - taken, :, :, :4].any()  # is free to be something else
    assert not color.grad[0, :, :, 4:].any()
    assert color.grad[1, :, :, 4:].all()


@pytest.mark.parametrize("pixel", ["l1", "l2"])
def test_each_image_and_region_has_a_nearest_answer_of_its_own(pixel: Literal["l1", "l2"]) -> None:
    batch = random_batch(3, size=8, noise=(4, 1))
    color = torch.randn(12, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    near = best_by_region(pixel, color, batch)
    for image, row, column in itertools.product(range(3), range(4), range(4)):
        where = (slice(None), slice(2 * row, 2 * row + 2), slice(2 * column, 2 * column + 2))
        parts = [color[4 * image + draw][where] for draw in range(4)]
        best = min(parts, key=lambda part: float(pixel_distance(pixel, part, batch.target[image][where])))
        assert torch.equal(near[image][where], best)


def test_one_answer_is_the_nearest_to_the_bit() -> None:
    batch = random_batch(3)
    assert torch.equal(best_by_region("l1", batch.target * 3, batch), batch.target * 3)


def test_the_discriminator_judges_one_answer_and_the_pixels_the_nearest() -> None:
    batch = batch_of(torch.zeros(2, 1, 1, 1), torch.zeros(2, 2, 1, 1))
    color = torch.tensor([5.0, 1.0, 2.0, 3.0]).view(4, 1, 1, 1).expand(4, 2, 1, 1)  # the nearest are 1 and 2
    seen = []

    def discriminator(grey: Tensor, judged: Tensor) -> Tensor:
        seen.append(judged[:, 0].flatten().tolist())
        return torch.zeros(len(judged), 1)

    for phase in ("discriminator", "generator"):
        loss = cgan().loss(phase, {"discriminator": discriminator}, batch, color, step=0)
    assert seen == [[0, 0, 5, 2], [5, 2]]
    assert loss.terms["l1"].item() == pytest.approx(1.5)


# --- autoencoder


@pytest.mark.parametrize(("pixel", "distance"), [("l1", 3), ("l2", 10)])
def test_autoencoder(pixel: Literal["l1", "l2"], distance: float) -> None:
    task = autoencoder(pixel)
    assert task.phases(0) == task.phases(10**6) == ("generator",)
    loss = task.loss("generator", {}, BATCH, answers(), step=0)
    assert loss.total.item() == pytest.approx(distance)
    assert {key: part.item() for key, part in loss.terms.items()} == {pixel: pytest.approx(distance)}


def test_generate_sees_grey_alone() -> None:
    seen = []

    def generator(grey: Tensor) -> Tensor:
        seen.append(grey)
        return answers()

    for task in (autoencoder(), cgan()):
        assert torch.equal(task.generate({"generator": generator}, BATCH), answers())
    assert all(grey is BATCH.grey for grey in seen)
    assert len(seen) == 2


def test_sample_is_one_pass_with_the_noise_it_is_given() -> None:
    grey, noise = torch.rand(2, 1, 1, 1), torch.rand(6, 3)

    def generator(grey: Tensor, noise: Tensor | None = None) -> Tensor:
        return grey.expand(-1, 2, -1, -1) if noise is None else noise[:, :2, None, None]

    for task in (autoencoder(), cgan()):
        assert torch.equal(task.sample({"generator": generator}, grey, None), generator(grey))
        assert torch.equal(task.sample({"generator": generator}, grey, noise), generator(grey, noise))
        assert (task.variants, task.variant_noise(0, grey), task.noise_shape(16)) == (1, None, (0,))
    noisy = AutoencoderTask(AutoencoderSettings(), UNetSettings(noise=3))
    assert (noisy.variants, noisy.noise_shape(16)) == (3, (3,))
    code = noisy.variant_noise(1, grey)
    assert code is not None
    assert code.tolist() == [[0, 1, 0]] * 2


# --- conditional GAN


def test_discriminator_that_cannot_tell() -> None:
    loss = cgan().loss("discriminator", says(0, 0, 0, 0), BATCH, answers(), step=0)
    assert loss.total.item() == pytest.approx(math.log(2))
    assert loss.terms["real"].item() == loss.terms["fake"].item() == pytest.approx(math.log(2))
    assert (
        loss.diagnostics["accuracy_real"].item() == loss.diagnostics["accuracy_fake"].item() == 0
    )  # a logit of 0 is no answer


def test_discriminator_that_is_half_right() -> None:
    # Real ones first: logits 1 and -2; then fake ones: 3 and -1.
    loss = cgan().loss("discriminator", says(1, -2, 3, -1), BATCH, answers(), step=0)
    real, fake = (softplus(-1) + softplus(2)) / 2, (softplus(3) + softplus(-1)) / 2
    assert loss.terms["real"].item() == pytest.approx(real)
    assert loss.terms["fake"].item() == pytest.approx(fake)
    assert loss.total.item() == pytest.approx((real + fake) / 2)
    assert loss.diagnostics["accuracy_real"].item() == loss.diagnostics["accuracy_fake"].item() == 0.5


def test_label_smoothing_is_one_sided() -> None:
    loss = cgan(label_smoothing=0.1).loss("discriminator", says(2, 2, 2, 2), BATCH, answers(), step=0)
    # Real is 0.9: nine tenths of being right, one tenth of being wrong.
    assert loss.terms["real"].item() == pytest.approx(0.9 * softplus(-2) + 0.1 * softplus(2))
    assert loss.terms["fake"].item() == pytest.approx(softplus(2))


def test_discriminator_sees_the_truth_first_and_the_same_grey() -> None:
    seen = []

    def discriminator(grey: Tensor, color: Tensor) -> Tensor:
        seen.append((grey, color))
        return torch.zeros(4, 1)

    batch = batch_of(torch.tensor([0.5, -0.5]).view(2, 1, 1, 1), torch.ones(2, 2, 1, 1))
    cgan().loss("discriminator", {"discriminator": discriminator}, batch, answers(), step=0)
    ((grey, color),) = seen
    assert grey.flatten().tolist() == [0.5, -0.5, 0.5, -0.5]
    assert torch.equal(color, torch.cat([batch.target, answers()]))


def test_discriminator_loss_sends_nothing_to_the_generator() -> None:
    judge = nn.Conv2d(3, 1, 1)
    calls = {"discriminator": lambda grey, color: judge(torch.cat([grey, color], dim=1))}
    untouched, taught = answers(), answers()
    cgan().loss("discriminator", calls, BATCH, untouched, step=0).total.backward()
    assert untouched.grad is None
    assert judge.weight.grad is not None
    cgan(pixel_weight=0.0).loss("generator", calls, BATCH, taught, step=0).total.backward()
    assert taught.grad is not None
    assert taught.grad.abs().max() > 0


@pytest.mark.parametrize(("pixel", "distance"), [("l1", 3), ("l2", 10)])
def test_generator_weighs_its_two_aims(pixel: str, distance: float) -> None:
    task = cgan(pixel=pixel, pixel_weight=7.0, adversarial_weight=0.5)
    loss = task.loss("generator", says(1, -2), BATCH, answers(), step=0)
    adversarial = (softplus(-1) + softplus(2)) / 2  # wants to hear "real"
    assert loss.terms[pixel].item() == pytest.approx(distance)
    assert loss.terms["adversarial"].item() == pytest.approx(adversarial)
    assert loss.total.item() == pytest.approx(7 * distance + 0.5 * adversarial)


@pytest.mark.parametrize("pixel", ["l1", "l2"])
def test_difference_of_neighbours(pixel: str) -> None:
    """A 2x2 answer that rises by 1 and 2 to the right, and by 0 and 1 below, where the truth is even."""
    color = torch.tensor([[0.0, 1.0], [0.0, 2.0]]).view(1, 1, 2, 2)
    even = torch.full((1, 1, 2, 2), 5.0)
    mean = {"l1": (1.5 + 0.5) / 2, "l2": (2.5 + 0.5) / 2}[pixel]  # of 1, 2 to the right and 0, 1 below
    assert gradient_difference_loss(pixel, color, even).item() == pytest.approx(mean)  # type: ignore[arg-type]
    assert gradient_difference_loss(pixel, color, color + 3).item() == 0  # type: ignore[arg-type]

    batch = batch_of(torch.zeros(1, 1, 2, 2), even)
    loss = cgan(pixel=pixel, pixel_weight=0.0, gradient_loss_weight=4.0).loss(
        "generator", says(0), batch, color, step=0
    )
    assert loss.terms["gradient_difference"].item() == pytest.approx(mean)
    assert loss.total.item() == pytest.approx(4 * mean + math.log(2))


def test_generator_goes_where_the_discriminator_is_fooled() -> None:
    color = answers()
    calls = {"discriminator": lambda grey, color: color.mean(dim=(1, 2, 3))}  # the larger, the more real
    cgan(pixel_weight=0.0).loss("generator", calls, BATCH, color, step=0).total.backward()
    assert color.grad is not None
    assert (color.grad < 0).all()


def test_relativistic_discriminator() -> None:
    # Pairs of real and fake: 1 and 3, -2 and -3. The first is told the wrong way round.
    loss = cgan(adversarial="relativistic").loss("discriminator", says(1, -2, 3, -3), BATCH, answers(), step=0)
    assert loss.total.item() == pytest.approx((softplus(2) + softplus(-1)) / 2)
    assert {name: part.item() for name, part in loss.terms.items()} == {
        "relativistic": pytest.approx(loss.total.item())
    }
    assert loss.diagnostics["accuracy"].item() == 0.5


def test_relativistic_generator() -> None:
    """It wants its colours to be taken for more real than the true ones of the same image, which teach it nothing."""
    target = torch.tensor([1.0, -2.0]).view(2, 1, 1, 1).expand(2, 2, 1, 1).clone().requires_grad_()
    color = answers()
    calls = {"discriminator": lambda grey, color: color.mean(dim=(1, 2, 3))}
    task = cgan(adversarial="relativistic", pixel_weight=0.0, adversarial_weight=3.0)
    loss = task.loss("generator", calls, batch_of(torch.zeros(2, 1, 1, 1), target), color, step=0)
    # Logits of the answers: 2 and -4; of the truth: 1 and -2.
    assert loss.terms["adversarial"].item() == pytest.approx((softplus(-1) + softplus(2)) / 2)
    loss.total.backward()
    assert color.grad is not None
    assert (color.grad < 0).all()
    assert target.grad is not None
    assert not target.grad.any()  # but for the pixel distance, which weighs nothing here


@pytest.mark.parametrize(("r1", "r2"), [(0.0, 0.0), (0.1, 0.0), (0.0, 0.3), (0.1, 0.3)])
def test_penalties(r1: float, r2: float) -> None:
    """A discriminator that says the squared colours: its gradient is twice the colours."""
    batch = batch_of(torch.zeros(2, 1, 1, 1), torch.tensor([[3.0, 4.0], [0.0, 1.0]]).view(2, 2, 1, 1))
    calls = {"discriminator": lambda grey, color: color.square().sum(dim=(1, 2, 3))}
    plain = cgan().loss("discriminator", calls, batch, answers(), step=0)
    loss = cgan(r1_weight=r1, r2_weight=r2).loss("discriminator", calls, batch, answers(), step=0)
    at_real, at_fake = 4 * (25 + 1) / 2, 4 * (8 + 32) / 2
    assert loss.total.item() == pytest.approx(plain.total.item() + r1 / 2 * at_real + r2 / 2 * at_fake)
    if r1 or r2:
        assert loss.terms["r1"].item() == pytest.approx(at_real)
        assert loss.terms["r2"].item() == pytest.approx(at_fake)
    else:
        assert loss.terms.keys() == plain.terms.keys()


def test_penalties_reach_nothing_but_the_discriminator() -> None:
    judge, color = nn.Conv2d(3, 1, 1), answers()
    calls = {"discriminator": lambda grey, color: judge(torch.cat([grey, color], dim=1))}
    task = cgan(r1_weight=2.0, r2_weight=4.0)
    task.loss("discriminator", calls, BATCH, color, step=0).total.backward()
    assert judge.weight.grad is not None
    penalised = judge.weight.grad.clone()
    judge.zero_grad()
    cgan().loss("discriminator", calls, BATCH, color, step=0).total.backward()
    # Linear, with one patch: half of 2 and of 4 times the squared weights, of the colours' channels alone.
    expected = 2 * (1 + 2) * judge.weight.detach() * torch.tensor([0.0, 1.0, 1.0]).view(1, 3, 1, 1)
    assert torch.allclose(penalised - judge.weight.grad, expected, atol=1e-6)
    assert color.grad is None
    assert not BATCH.target.requires_grad


def test_both_turns_see_the_same_changes() -> None:
    """The truth of an image and its answer are changed alike, in both turns, and their grey with them."""
    seen: list[tuple[Tensor, Tensor]] = []

    def discriminator(grey: Tensor, color: Tensor) -> Tensor:
        seen.append((grey, color))
        return color.mean(dim=(1, 2, 3))

    batch, calls = random_batch(4), {"discriminator": discriminator}
    for adversarial in ("bce", "relativistic"):
        seen.clear()
        task = cgan(augment=["translation", "cutout"], adversarial=adversarial)
        for phase in ("discriminator", "generator"):
            task.loss(phase, calls, batch, batch.target + 1, step=0)
        (grey, both), (generators_grey, fake), *rest = seen
        assert torch.equal(grey[:4], grey[4:])
        assert torch.equal(generators_grey, grey[4:])
        assert torch.equal(fake, both[4:])
        assert all(torch.equal(real, both[:4]) for _, real in rest)
        shown = both[:4] != 0
        assert torch.allclose(both[4:], (both[:4] + 1) * shown)
        assert 0 < shown.double().mean() < 1
        assert len(rest) == (adversarial == "relativistic")


def test_warm_up() -> None:
    task = cgan(warmup_steps=2, pixel_weight=7.0)
    assert [task.phases(step) for step in range(4)] == [("generator",)] * 2 + [("discriminator", "generator")] * 2
    # No discriminator may be called: there is none.
    loss = task.loss("generator", {}, BATCH, answers(), step=1)
    assert loss.total.item() == pytest.approx(21)
    assert set(loss.terms) == {"l1"}
    assert "adversarial" in task.loss("generator", says(0, 0), BATCH, answers(), step=2).terms
