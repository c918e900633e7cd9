"""Loss scaling, overflows and what is done about gradients that are no numbers.

Only GPUs train in fp16, but its logic doesn't depend on them: here the scaler of each network is one for the CPU, and
the networks compute in another format.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from helpers import alone_on_the_cpu, prepared, random_batch, tiny
from torch import Tensor

from colordist.data.batch import Batch
from colordist.data.sampler import even_slices
from colordist.engine.ddp import DDPStrategy, reads_found_inf
from colordist.engine.eager import Adam
from colordist.tasks.base import Calls, Generated, Loss

NETWORKS = ("generator", "discriminator")
EVERYTHING: dict[str, Any] = {
    "task__adversarial": "relativistic",
    "task__r1_weight": 3.0,
    "task__r2_weight": 2.0,
    "task__augment": ["translation", "cutout"],
    "discriminator__spectral_norm": False,
    "model__blocks": 1,
    "model__attention_level": 1,
}
"""What there is to choose in a conditional GAN, chosen."""
Scale = float | Mapping[str, float] | None


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with alone_on_the_cpu(monkeypatch):
        yield


class Training:
    """A small conditional GAN, a step at a time."""

    def __init__(self, *, scale: Scale = None, interval: int = 1000, clip: float | None = None, **more: Any) -> None:  # noqa: ANN401
        """scale: the first loss scale, of both networks or by network; None for no scaling. more: any setting."""
        limits = {f"optimizer__{name}__clip_norm": clip for name in NETWORKS}
        config = tiny(**({"train__precision": "fp32", "model__norm": "instance"} | limits | more))
        self.engine, self.task, self.networks = prepared(config)
        self.spoiled: dict[tuple[str, int], float] = {}
        """(network, step) to what its loss is multiplied with."""
        self._real_loss = self.task.loss
        self.task.loss = self._loss  # type: ignore[method-assign]
        for name in NETWORKS:
            first = scale[name] if isinstance(scale, Mapping) else scale
            if first is not None:
                self.strategy(name).scaler = torch.amp.GradScaler("cpu", init_scale=first, growth_interval=interval)

    def strategy(self, name: str) -> DDPStrategy:
        strategy = self.engine.strategies[name]
        assert isinstance(strategy, DDPStrategy)
        return strategy

    def step(self, step: int, micro: int | None = None) -> dict[str, float]:
        """Returns the log."""
        batch = random_batch(6 + step, dtype=self.engine.dtype)
        sample_slices = [batch[part] for part in even_slices(len(batch), micro)]
        return {name: float(value) for name, value in self.engine.step(self.task, sample_slices, step).items()}

    def learned(self, name: str) -> dict[str, Tensor]:
        """Weights, optimizer state and average of a network, but for what spectral normalisation iterates."""
        state = self.engine.state_dict()[name]
        parts = flat({part: state[part] for part in ("module", "optimizer", "ema") if part in state})
        return {key: value.clone() for key, value in parts.items() if not key.endswith((".left", ".columns"))}

    def scales(self) -> dict[str, float]:
        return {name: self.strategy(name).scaler.get_scale() for name in NETWORKS}

    def tracker(self, name: str) -> int:
        """How many updates without overflow a scaler has counted."""
        return int(self.strategy(name).scaler.state_dict()["_growth_tracker"])

    def updates(self, name: str) -> int:
        return int(self.learned(name)["/optimizer/state/0/step"])

    def _loss(self, phase: str, calls: Calls, batch: Batch, generated: Generated, step: int) -> Loss:
        loss = self._real_loss(phase, calls, batch, generated, step)
        return Loss(loss.total * self.spoiled.get((phase, step), 1.0), loss.terms)


def flat(state: object, name: str = "") -> dict[str, Tensor]:
    if isinstance(state, Tensor):
        return {name: state}
    parts = state.items() if isinstance(state, dict) else ()
    return {path: value for key, part in parts for path, value in flat(part, f"{name}/{key}").items()}


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value), key


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert (found[key] - value).norm() <= tolerance * value.norm(), key


# --- one loss scale a network


@pytest.mark.parametrize(("fails", "other"), [NETWORKS, NETWORKS[::-1]])
def test_an_overflow_in_one_network_is_its_own_affair(fails: str, other: str) -> None:
    training, unhurt = (Training(scale=1024.0) for _ in range(2))
    training.spoiled[fails, 1] = torch.inf
    for step in range(2):
        log = training.step(step)
        unhurt.step(step)
    assert training.scales() == {fails: 512.0, other: 1024.0}
    assert (training.tracker(fails), training.tracker(other)) == (0, 2)
    assert (training.updates(fails), training.updates(other)) == (1, 2)
    assert (log[f"diagnostics/{fails}/skipped"], log[f"diagnostics/{other}/skipped"]) == (1, 0)
    if other == "discriminator":  # has its turn first: nothing of this step is different for it
        assert_equal(training.learned(other), unhurt.learned(other))


def test_a_scale_too_high_finds_its_place_while_the_other_learns() -> None:
    training = Training(scale={"generator": 256.0, "discriminator": 2.0**127})
    training.spoiled |= {("discriminator", step): 64.0 for step in range(12)}  # finite, but too much for this scale
    skipped = []
    for step in range(12):
        log = training.step(step)
        skipped.append(log["diagnostics/discriminator/skipped"])
        assert log["diagnostics/generator/skipped"] == 0
    count = int(sum(skipped))
    assert 0 < count < 12
    assert skipped == [1] * count + [0] * (12 - count)
    assert training.scales() == {"generator": 256.0, "discriminator": 2.0 ** (127 - count)}
    assert (training.updates("generator"), training.updates("discriminator")) == (12, 12 - count)
    assert training.engine.skipped_in_a_row() == {"generator": 0, "discriminator": 0}


def test_each_scale_grows_after_as_many_good_updates_of_its_own() -> None:
    training = Training(scale=8.0, interval=3)
    training.spoiled["discriminator", 1] = torch.nan
    found = []
    for step in range(6):
        training.step(step)
        found.append(training.scales())
    assert [each["generator"] for each in found] == [8, 8, 16, 16, 16, 32]
    assert [each["discriminator"] for each in found] == [8, 4, 4, 4, 8, 8]


def test_the_log_tells_the_scale_of_the_next_update() -> None:
    training = Training(scale=8.0, interval=1)
    assert [training.step(step)["diagnostics/generator/loss_scale"] for step in range(2)] == [16, 32]


def test_without_scaling_there_is_no_scale_to_log() -> None:
    assert not any("loss_scale" in key for key in Training().step(0))


# --- what a skipped update leaves alone


@pytest.mark.parametrize("scale", [None, 64.0])
@pytest.mark.parametrize("spoiled", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("clip", [None, 0.1])
def test_a_skipped_update_changes_nothing(
    scale: float | None, spoiled: float, network: str, clip: float | None
) -> None:
    training = Training(scale=scale, clip=clip, train__ema_images=0)  # the average is a copy: it would show at once
    for step in range(2):
        training.step(step)
    before = training.learned(network)
    training.spoiled[network, 2] = spoiled
    log = training.step(2)
    assert_equal(training.learned(network), before)
    assert all(torch.tensor(value).isfinite() for value in log.values())
    assert log[f"diagnostics/{network}/skipped"] == 1
    assert training.engine.skipped_in_a_row()[network] == 1

    log = training.step(3)
    assert log[f"diagnostics/{network}/skipped"] == 0
    assert training.engine.skipped_in_a_row()[network] == 0
    after = training.learned(network)
    assert all(value.isfinite().all() for value in after.values())
    assert not any(torch.equal(after[key], value) for key, value in before.items() if key.startswith("/module"))


@pytest.mark.parametrize("scale", [None, 64.0])
def test_the_average_comes_nearer_also_when_an_update_is_skipped(scale: float | None) -> None:
    training = Training(scale=scale, train__ema_images=100)
    training.step(99)  # at the start the average is short

    def distance() -> float:
        learned = training.learned("generator")
        weights = {key.removeprefix("/module"): value for key, value in learned.items() if key.startswith("/module")}
        return sum(float((learned[f"/ema{key}"] - value).norm()) for key, value in weights.items())

    before = distance()
    training.spoiled["generator", 100] = torch.nan
    training.step(100)
    assert 0 < distance() < before


@pytest.mark.parametrize("scale", [None, 64.0])
def test_the_first_update_of_all_may_be_skipped(scale: float | None) -> None:
    training = Training(scale=scale)
    training.spoiled |= {(name, 0): torch.nan for name in NETWORKS}
    training.step(0)
    assert [training.updates(name) for name in NETWORKS] == [0, 0]
    log = training.step(1)
    assert [training.updates(name) for name in NETWORKS] == [1, 1]
    assert [log[f"diagnostics/{name}/skipped"] for name in NETWORKS] == [0, 0]


def test_what_is_skipped_is_counted_network_by_network() -> None:
    training = Training()
    training.spoiled |= {("generator", step): torch.nan for step in (0, 1, 2)}
    training.spoiled |= {("discriminator", step): torch.inf for step in (0, 2)}
    found = []
    for step in range(4):
        training.step(step)
        found.append(training.engine.skipped_in_a_row())
    assert [each["generator"] for each in found] == [1, 2, 3, 0]
    assert [each["discriminator"] for each in found] == [1, 0, 1, 0]


# --- scaling changes nothing else


@pytest.mark.parametrize("clip", [None, 1e-2])
@pytest.mark.parametrize("micro", [None, 2])
@pytest.mark.parametrize("more", [{}, EVERYTHING], ids=["plain", "everything"])
def test_scaling_clipping_and_accumulation_give_the_same_updates(
    clip: float | None, micro: int | None, more: dict[str, Any]
) -> None:
    """A power of two scales without rounding, so only the order of sums over micro-batches is left to differ.

    Penalties are scaled once: with the loss that they are part of, not when they are measured.
    """
    plain = Training(train__precision="fp64", clip=clip, **more)
    scaled = Training(train__precision="fp64", clip=clip, scale=2.0**10, **more)
    for step in range(4):
        expected, found = plain.step(step), scaled.step(step, micro)
        for name in NETWORKS:
            norm = expected[f"diagnostics/{name}/gradient_norm"]
            assert found[f"diagnostics/{name}/gradient_norm"] == pytest.approx(
                norm, rel=1e-6
            )  # told as it is without scaling
            assert clip is None or norm > clip
    for name in NETWORKS:
        # Scalers multiply by a reciprocal in single precision: exact for this scale.
        assert_close(scaled.learned(name), plain.learned(name), tolerance=1e-12)


def test_penalties_in_half_precision_are_measured_in_single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """The networks compute in bf16, three digits; what is made of their gradients isn't rounded again."""
    found = {}
    for precision in ("bf16", "fp32"):
        with alone_on_the_cpu(monkeypatch):
            log = Training(train__precision=precision, **EVERYTHING).step(0)
        assert all(torch.tensor(value).isfinite() for value in log.values())
        keys = ("loss/discriminator/r1", "loss/discriminator/r2", "diagnostics/discriminator/gradient_norm")
        found[precision] = [log[key] for key in keys]
    assert found["bf16"] == pytest.approx(found["fp32"], rel=0.03)
    assert torch.tensor(found["bf16"][0]).bfloat16().item() != found["bf16"][0]


def test_an_overflow_in_one_of_several_micro_batches_spoils_the_whole_update() -> None:
    training = Training(scale=64.0)
    training.step(0)
    before = {name: training.learned(name) for name in NETWORKS}
    real, seen = training.task.loss, []

    def loss(phase: str, calls: Calls, batch: Batch, generated: Generated, step: int) -> Loss:
        found = real(phase, calls, batch, generated, step)
        seen.append(phase)
        return Loss(found.total * torch.inf, found.terms) if seen == ["discriminator"] * 2 else found

    training.task.loss = loss  # type: ignore[method-assign]
    log = training.step(1, micro=2)
    assert seen == ["discriminator"] * 4 + ["generator"] * 4
    assert_equal(training.learned("discriminator"), before["discriminator"])
    assert (log["diagnostics/discriminator/skipped"], log["diagnostics/generator/skipped"]) == (1, 0)
    assert training.scales() == {"generator": 64.0, "discriminator": 32.0}


# --- continued


def test_scales_are_saved_and_restored() -> None:
    straight, before = (Training(scale=16.0, interval=3) for _ in range(2))
    for training in (straight, before):
        training.spoiled |= {("discriminator", 1): torch.inf, ("generator", 3): torch.nan}
    for step in range(2):
        straight.step(step)
        before.step(step)
    after = Training(scale=1.0, interval=3)
    after.spoiled = before.spoiled
    after.engine.load_state_dict(before.engine.state_dict())
    assert after.scales() == before.scales() == {"generator": 16.0, "discriminator": 8.0}
    for step in range(2, 6):
        assert after.step(step) == straight.step(step)
        assert after.scales() == straight.scales()
        assert after.engine.skipped_in_a_row() == straight.engine.skipped_in_a_row()
    for name in NETWORKS:
        assert_equal(after.learned(name), straight.learned(name))


# --- gradients that are finite, but too long to measure


@pytest.mark.parametrize("scale", [None, 1.0])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_gradient_whose_length_overflows_is_skipped(scale: float | None, clip: float | None) -> None:
    """Each of its numbers is finite in fp32, the sum of their squares isn't: clipping it would make it zero."""
    training = Training(scale=scale, clip=clip)
    training.step(0)
    before = training.learned("generator")
    training.spoiled["generator", 1] = 1e25
    log = training.step(1)
    assert log["diagnostics/generator/skipped"] == 1
    for key, value in training.learned("generator").items():
        assert key.startswith("/ema") or torch.equal(value, before[key]), key


# --- devices whose fused Adam ignores the flag that skips an update


def heedless() -> type[Adam]:
    """Adam that ignores ``found_inf``, as on MPS with PyTorch 2.11 and 2.12."""

    class Heedless(Adam):
        def step(self, closure: Any = None) -> Any:  # noqa: ANN401  as in the base class
            self.found_inf = None
            return super().step(closure)

    return Heedless


def test_a_fused_adam_that_ignores_the_flag_is_found() -> None:
    found = [reads_found_inf(kind, torch.device("cpu")) for kind in (Adam, heedless())]
    assert found == [True, False]


@pytest.mark.parametrize("scale", [None, 64.0])
def test_with_such_an_adam_a_skipped_update_still_changes_nothing(
    scale: float | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("colordist.engine.network.Adam", heedless())
    test_a_skipped_update_changes_nothing(scale, torch.nan, "generator", clip=None)
    assert [record.message for record in caplog.records] == [
        f"fused Heedless ignores found_inf on cpu with PyTorch {torch.__version__}: each update waits for the device"
    ]
