"""Losses and phases, worked by hand on networks that always say the same."""

import math
from collections.abc import Callable, Mapping

import pytest
import torch
from helpers import batch_of
from torch import Tensor, nn

from colordist.config import LossConfig, OptimizerConfig
from colordist.network import Network
from colordist.tasks.autoencoder import AutoencoderTask
from colordist.tasks.cgan import CGANTask
from colordist.tasks.losses import cross_entropy, difference_distance, pixel_distance

Calls = Mapping[str, Callable[..., Tensor]]

# Two images of one pixel. Truth is 0; the answers below are 2 and -4 in every channel: mean |difference| 3, mean square
# (4 + 16) / 2 = 10.
BATCH = batch_of(torch.zeros(2, 1, 1, 1), torch.zeros(2, 2, 1, 1))


def answers() -> Tensor:
    return torch.tensor([2.0, -4.0]).view(2, 1, 1, 1).expand(2, 2, 1, 1).clone().requires_grad_()


def network() -> Network:
    return Network(nn.Linear(1, 1), OptimizerConfig(), 10)


def cgan(**settings: object) -> CGANTask:
    return CGANTask(network(), network(), LossConfig(**{"warmup_steps": 0, "difference_weight": 0.0} | settings))  # type: ignore[arg-type]


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
    assert pixel_distance("l1", answers(), BATCH.truth).item() == pytest.approx(3)
    assert pixel_distance("l2", answers(), BATCH.truth).item() == pytest.approx(10)


def test_cross_entropy() -> None:
    # A logit of 0 is a probability of one half, whatever the target.
    for target in (0, 0.3, 1):
        assert cross_entropy(torch.zeros(3, 1), target).item() == pytest.approx(math.log(2))
    # log 3 stands for 3/4: -log(3/4) if that is true, -log(1/4) if not.
    logit = torch.tensor([math.log(3)])
    assert cross_entropy(logit, 1).item() == pytest.approx(math.log(4 / 3))
    assert cross_entropy(logit, 0).item() == pytest.approx(math.log(4))
    assert cross_entropy(logit, 0.5).item() == pytest.approx((math.log(4 / 3) + math.log(4)) / 2)
    assert cross_entropy(torch.tensor([500.0]), 0).item() == pytest.approx(500)  # no overflow


# --- autoencoder


@pytest.mark.parametrize(("pixel", "distance"), [("l1", 3), ("l2", 10)])
def test_autoencoder(pixel: str, distance: float) -> None:
    task = AutoencoderTask(network(), pixel)  # type: ignore[arg-type]
    assert task.phases(0) == task.phases(10**6) == ("generator",)
    loss = task.loss("generator", {}, BATCH, answers(), step=0)
    assert loss.total.item() == pytest.approx(distance)
    assert {key: part.item() for key, part in loss.parts.items()} == {pixel: pytest.approx(distance)}


def test_generate_sees_grey_alone() -> None:
    seen = []

    def generator(grey: Tensor) -> Tensor:
        seen.append(grey)
        return answers()

    for task in (AutoencoderTask(network(), "l1"), cgan()):
        assert torch.equal(task.generate({"generator": generator}, BATCH), answers())
    assert all(grey is BATCH.grey for grey in seen)
    assert len(seen) == 2


# --- conditional GAN


def test_discriminator_that_cannot_tell() -> None:
    loss = cgan().loss("discriminator", says(0, 0, 0, 0), BATCH, answers(), step=0)
    assert loss.total.item() == pytest.approx(math.log(2))
    assert loss.parts["real"].item() == loss.parts["fake"].item() == pytest.approx(math.log(2))
    assert loss.parts["accuracy_real"].item() == loss.parts["accuracy_fake"].item() == 0  # a logit of 0 is no answer


def test_discriminator_that_is_half_right() -> None:
    # Real ones first: logits 1 and -2; then fake ones: 3 and -1.
    loss = cgan().loss("discriminator", says(1, -2, 3, -1), BATCH, answers(), step=0)
    real, fake = (softplus(-1) + softplus(2)) / 2, (softplus(3) + softplus(-1)) / 2
    assert loss.parts["real"].item() == pytest.approx(real)
    assert loss.parts["fake"].item() == pytest.approx(fake)
    assert loss.total.item() == pytest.approx((real + fake) / 2)
    assert loss.parts["accuracy_real"].item() == loss.parts["accuracy_fake"].item() == 0.5


def test_label_smoothing_is_one_sided() -> None:
    loss = cgan(label_smoothing=0.1).loss("discriminator", says(2, 2, 2, 2), BATCH, answers(), step=0)
    # Real is 0.9: nine tenths of being right, one tenth of being wrong.
    assert loss.parts["real"].item() == pytest.approx(0.9 * softplus(-2) + 0.1 * softplus(2))
    assert loss.parts["fake"].item() == pytest.approx(softplus(2))


def test_discriminator_sees_the_truth_first_and_the_same_grey() -> None:
    seen = []

    def discriminator(grey: Tensor, color: Tensor) -> Tensor:
        seen.append((grey, color))
        return torch.zeros(4, 1)

    batch = batch_of(torch.tensor([0.5, -0.5]).view(2, 1, 1, 1), torch.ones(2, 2, 1, 1))
    cgan().loss("discriminator", {"discriminator": discriminator}, batch, answers(), step=0)
    ((grey, color),) = seen
    assert grey.flatten().tolist() == [0.5, -0.5, 0.5, -0.5]
    assert torch.equal(color, torch.cat([batch.truth, answers()]))


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
    assert loss.parts[pixel].item() == pytest.approx(distance)
    assert loss.parts["adversarial"].item() == pytest.approx(adversarial)
    assert loss.total.item() == pytest.approx(7 * distance + 0.5 * adversarial)


@pytest.mark.parametrize("pixel", ["l1", "l2"])
def test_difference_of_neighbours(pixel: str) -> None:
    """A 2x2 answer that rises by 1 and 2 to the right, and by 0 and 1 below, where the truth is even."""
    color = torch.tensor([[0.0, 1.0], [0.0, 2.0]]).view(1, 1, 2, 2)
    even = torch.full((1, 1, 2, 2), 5.0)
    mean = {"l1": (1.5 + 0.5) / 2, "l2": (2.5 + 0.5) / 2}[pixel]  # of 1, 2 to the right and 0, 1 below
    assert difference_distance(pixel, color, even).item() == pytest.approx(mean)  # type: ignore[arg-type]
    assert difference_distance(pixel, color, color + 3).item() == 0  # type: ignore[arg-type]

    batch = batch_of(torch.zeros(1, 1, 2, 2), even)
    loss = cgan(pixel=pixel, pixel_weight=0.0, difference_weight=4.0).loss("generator", says(0), batch, color, step=0)
    assert loss.parts["difference"].item() == pytest.approx(mean)
    assert loss.total.item() == pytest.approx(4 * mean + math.log(2))


def test_generator_goes_where_the_discriminator_is_fooled() -> None:
    color = answers()
    calls = {"discriminator": lambda grey, color: color.mean(dim=(1, 2, 3))}  # the larger, the more real
    cgan(pixel_weight=0.0).loss("generator", calls, BATCH, color, step=0).total.backward()
    assert color.grad is not None
    assert (color.grad < 0).all()


def test_warm_up() -> None:
    task = cgan(warmup_steps=2, pixel_weight=7.0)
    assert [task.phases(step) for step in range(4)] == [("generator",)] * 2 + [("discriminator", "generator")] * 2
    # No discriminator may be called: there is none.
    loss = task.loss("generator", {}, BATCH, answers(), step=1)
    assert loss.total.item() == pytest.approx(21)
    assert set(loss.parts) == {"l1"}
    assert "adversarial" in task.loss("generator", says(0, 0), BATCH, answers(), step=2).parts
