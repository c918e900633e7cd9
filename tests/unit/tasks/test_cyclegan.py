"""Unpaired training: losses and pool by hand, each network's gradient, and what the engine keeps of the pool."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import alone_on_the_cpu, prepared, random_batch, tiny
from runs import assert_bit_equal, everything, killed_run, learned, run
from torch import Tensor

from colordist.color import ColorSpace
from colordist.data.batch import Batch
from colordist.data.sampler import UNIFORMS, even_slices
from colordist.engine.network import Network
from colordist.engine.runtime import Engine
from colordist.errors import UserError
from colordist.models.unet import UNetSettings
from colordist.tasks.base import Task
from colordist.tasks.cyclegan import CycleGANSettings, CycleGANTask, Fakes
from colordist.tasks.image_buffer import empty_buffer, exchange
from colordist.tasks.losses import bce

NETWORKS = ("generator", "decolorizer", "discriminator", "grey_discriminator")
Calls = Mapping[str, Callable[..., Tensor]]
NAMES = ("generator", "decolorizer", "discriminator", "grey_discriminator")


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with alone_on_the_cpu(monkeypatch):
        yield


def ready(**settings: Any) -> tuple[Engine, Task, dict[str, Network]]:  # noqa: ANN401  any setting
    """In double precision, with networks that answer something from the start."""
    config = tiny(
        task__name="cyclegan", train__precision="fp64", model__norm="instance", data__image_size=16, **settings
    )
    engine, task, networks = prepared(config)
    random = torch.Generator().manual_seed(5)
    for network in networks.values():
        with torch.no_grad():
            for parameter in network.module.parameters():
                if not parameter.any():
                    parameter.copy_(torch.randn(parameter.shape, generator=random) / 10)
    return engine, task, networks


# --- losses by hand


def by_hand(**settings: Any) -> tuple[CycleGANTask, Calls, Batch]:  # noqa: ANN401  any setting
    """One image of one pixel: grey 1; in colour, grey 2 with a 4 and b 4. G answers 3 times grey, F half of grey."""
    task = CycleGANTask(CycleGANSettings(**{"warmup_steps": 0, "image_buffer_slots": 0} | settings), UNetSettings())
    calls = {
        "generator": lambda grey: 3 * grey.expand(-1, 2, -1, -1),
        "decolorizer": lambda image: image[:, :1] / 2,
        "discriminator": lambda image: image[:, 1:2] - 3,  # 0 for an a of 3
        "grey_discriminator": lambda image: image - 1,  # 0 for a grey of 1
    }
    pixel = torch.ones(1, 1, 1, 1)
    color = torch.full((1, 2, 1, 1), 4.0)
    batch = Batch(
        pixel, color, torch.zeros(1, UNIFORMS), torch.zeros(1, 0, 0), 2 * pixel, torch.arange(1), color[:, :0]
    )
    return task, calls, batch


def parts(loss: Any) -> dict[str, float]:  # noqa: ANN401
    return {name: part.item() for name, part in loss.terms.items()}


def test_what_generators_make() -> None:
    task, calls, batch = by_hand()
    fakes = task.generate(calls, batch)
    assert fakes.image.flatten().tolist() == [1, 3, 3]
    assert fakes.grey.flatten().tolist() == [1]


def test_generator_by_hand() -> None:
    task, calls, batch = by_hand(cycle_weight=2.0, adversarial_weight=5.0)
    loss = task.loss("generator", calls, batch, task.generate(calls, batch), step=0)
    log2 = bce(torch.zeros(1), 1).item()
    # 1 -> (1, 3, 3) -> 0.5; (2, 4, 4) -> 1 -> (1, 3, 3): off by one in each of three channels.
    assert parts(loss) == pytest.approx({"adversarial": log2, "cycle_grey": 0.5, "cycle_color": 1.0})
    assert loss.total.item() == pytest.approx(5 * log2 + 2 * 1.5)


def test_decolorizer_by_hand() -> None:
    task, calls, batch = by_hand(cycle_weight=2.0, adversarial_weight=5.0, identity_weight=7.0)
    loss = task.loss("decolorizer", calls, batch, task.generate(calls, batch), step=0)
    log2 = bce(torch.zeros(1), 1).item()
    expected = {"adversarial": log2, "cycle_grey": 0.5, "cycle_color": 1.0, "identity": 0.5}
    assert parts(loss) == pytest.approx(expected)
    assert loss.total.item() == pytest.approx(5 * log2 + 2 * 1.5 + 7 * 0.5)


def test_discriminators_by_hand() -> None:
    task, calls, batch = by_hand(label_smoothing=0.25)
    fakes = task.generate(calls, batch)
    logit = {"discriminator": (1.0, 0.0), "grey_discriminator": (0.0, 0.0)}  # true a is 4, fake 3; both greys are 1
    for name, (real, fake) in logit.items():
        loss = task.loss(name, calls, batch, fakes, step=0)
        told = bce(torch.tensor(real), 0.75), bce(torch.tensor(fake), 0)
        assert loss.terms["real"].item() == pytest.approx(told[0].item())
        assert loss.terms["fake"].item() == pytest.approx(told[1].item())
        assert loss.total.item() == pytest.approx((told[0] + told[1]).item() / 2)
        assert tuple(loss.diagnostics[f"accuracy_{kind}"].item() for kind in ("real", "fake")) == (real > 0, 0)
        assert loss.state == {}


def test_warm_up_is_without_discriminators() -> None:
    task, calls, batch = by_hand(warmup_steps=2)
    assert [task.phases(step) for step in (1, 2)] == [NETWORKS[:2], (*NETWORKS[2:], *NETWORKS[:2])]
    for name in task.phases(1):
        loss = task.loss(name, {each: calls[each] for each in NETWORKS[:2]}, batch, task.generate(calls, batch), step=1)
        assert "adversarial" not in loss.terms


@pytest.mark.parametrize("space", ["lab", "rgb"])
def test_forms_of_an_image(space: Any) -> None:  # noqa: ANN401  a literal
    grey, color = torch.rand(2, 1, 3, 3), torch.rand(2, ColorSpace(space).channels, 3, 3)
    image = ColorSpace(space).image(grey, color)
    assert torch.equal(image, torch.cat([grey, color], dim=1) if space == "lab" else color)
    rgb = torch.randint(256, (2, 1, 3, 3), dtype=torch.uint8).expand(-1, 3, -1, -1)
    expected = ColorSpace(space).image(*ColorSpace(space).split(rgb, torch.float64))
    found = ColorSpace(space).colorless(ColorSpace(space).split(rgb, torch.float64)[0])
    assert (found - expected).abs().max() < 1e-3  # greys have |a|, |b| up to 0.011


# --- gradients


@pytest.mark.parametrize("space", ["lab", "rgb"])
def test_each_network_learns_by_the_gradient_of_the_same_sum(space: str) -> None:
    """What a phase leaves out doesn't depend on its network's weights."""
    _, task, networks = ready(model__color_space=space, task__image_buffer_slots=0)
    assert isinstance(task, CycleGANTask)
    modules = {name: network.module for name, network in networks.items()}
    batch, settings = random_batch(3, channels=task.color_space.channels), task.settings
    colors = task.color_space
    for module in modules.values():
        module.requires_grad_(True)

    true = colors.image(batch.target_grey, batch.target)
    fake = colors.image(batch.grey, modules["generator"](batch.grey))
    grey = modules["decolorizer"](true)
    there = (modules["decolorizer"](fake) - batch.grey).abs().mean()
    back = (colors.image(grey, modules["generator"](grey)) - true).abs().mean()
    identity = (modules["decolorizer"](colors.colorless(batch.grey)) - batch.grey).abs().mean()
    fooled = bce(modules["discriminator"](fake), 1) + bce(modules["grey_discriminator"](grey), 1)
    joint = fooled + settings.cycle_weight * (there + back) + settings.identity_weight * identity

    weights = {name: list(modules[name].parameters()) for name in task.generators}
    expected = {name: torch.autograd.grad(joint, weights[name], retain_graph=True) for name in weights}
    for name in weights:
        for each, module in modules.items():
            module.requires_grad_(each in weights)
        generated = task.generate(modules, batch)
        for each, module in modules.items():
            module.requires_grad_(each == name)
        found = torch.autograd.grad(task.loss(name, modules, batch, generated, step=0).total, weights[name])
        for one, two in zip(found, expected[name], strict=True):
            assert torch.allclose(one, two, rtol=1e-9, atol=1e-12)


# --- the pool


def test_pool_by_hand() -> None:
    """Three places, of two slots each."""
    buffer = empty_buffer(3, 2, 1, 1)

    def show(fresh: list[float], uniforms: list[tuple[float, float]]) -> list[float]:
        nonlocal buffer
        before = buffer.clone()
        shown, after = exchange(buffer, torch.tensor(fresh).view(3, 1, 1, 1), torch.tensor(uniforms))
        assert torch.equal(buffer, before)
        buffer = after
        return shown.flatten().tolist()

    none = torch.inf
    # Empty slots are filled, whatever chance says, and what fills them is shown.
    assert show([1, 2, 3], [(0.9, 0.0), (0.1, 0.0), (0.1, 0.99)]) == [1, 2, 3]
    assert buffer.flatten(1).tolist() == [[1, none], [2, none], [none, 3]]
    # The first is kept out by chance, the second takes the place of 2, the third fills its other slot.
    assert show([4, 5, 6], [(0.5, 0.0), (0.49, 0.49), (0.0, 0.0)]) == [4, 2, 6]
    assert buffer.flatten(1).tolist() == [[1, none], [5, none], [6, 3]]


def test_half_of_what_is_shown_is_older() -> None:
    random, buffer = torch.Generator().manual_seed(0), torch.zeros(4000, 3, 1, 1, 1)
    shown, buffer = exchange(buffer, torch.ones(4000, 1, 1, 1), torch.rand(4000, 2, generator=random))
    assert shown.mean().item() == pytest.approx(0.5, abs=0.03)
    assert buffer.mean(dim=(0, 2, 3, 4)).tolist() == pytest.approx([1 / 6] * 3, abs=0.03)


def test_a_full_chance_is_no_slot_too_many() -> None:
    uniforms = torch.tensor([[0.0, 1 - 2**-24]])
    for slots in range(1, 65):
        buffer = torch.arange(float(slots)).view(1, slots, 1, 1, 1)
        assert exchange(buffer, torch.zeros(1, 1, 1, 1), uniforms)[0].item() == slots - 1


def buffers(task: Task) -> dict[str, Tensor]:
    return {name: rows.clone() for name, rows in task.state.items()}


def test_a_discriminator_is_shown_its_pool() -> None:
    _, task, _ = ready()
    batch = random_batch(4)
    always = Batch(**{**vars(batch), "uniforms": torch.zeros(4, UNIFORMS)})
    for name in ("discriminator", "grey_discriminator"):
        task.state[name].fill_(0.25)
        seen: list[Tensor] = []

        def judge(images: Tensor, seen: list[Tensor] = seen) -> Tensor:
            seen.append(images)
            return images.mean(dim=1)

        fakes = Fakes(torch.ones(4, 3, 16, 16), torch.ones(4, 1, 16, 16))
        loss = task.loss(name, {name: judge}, always, fakes, step=0)
        assert (seen[0][4:] == 0.25).all()
        assert (loss.state[name][:, 0] == 1).all()
        assert (task.state[name] == 0.25).all()  # until the update is made


def test_only_an_update_that_counts_changes_the_pool() -> None:
    engine, task, _ = ready()
    before = buffers(task)
    bad = random_batch(4)
    bad.target[0, 0, 0, 0] = torch.inf
    log = engine.step(task, [bad], 0)
    assert log["diagnostics/discriminator/skipped"] == 1
    assert torch.equal(before["discriminator"], task.state["discriminator"])
    engine.step(task, [random_batch(4)], 1)
    for name, rows in task.state.items():
        filled = rows.isfinite().flatten(2).all(dim=2)
        assert filled.sum(dim=1).tolist() == [1] * 4, name


def test_micro_batches_leave_the_same() -> None:
    """Weights, pools and losses after six steps, in which older images have been shown."""

    def after(most: int | None) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
        engine, task, networks = ready(task__image_buffer_slots=1, task__warmup_steps=1)
        batches = []
        for step in range(6):
            whole = random_batch(4)
            uniforms = torch.rand(4, UNIFORMS, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
            batches.append(Batch(**{**vars(whole), "uniforms": uniforms, "grey": whole.grey.roll(step, -1)}))
        logs = [
            engine.step(task, [batch[part] for part in even_slices(4, most)], step)
            for step, batch in enumerate(batches)
        ]
        weights = {name: network.module.state_dict() for name, network in networks.items()}
        return {f"{n}/{key}": value for n, state in weights.items() for key, value in state.items()} | buffers(
            task
        ), logs

    (expected, expected_logs), (found, logs) = after(None), after(3)
    for key, value in expected.items():
        assert (found[key] - value).abs().max() < 1e-11, key
    for one, two in zip(expected_logs, logs, strict=True):
        assert one.keys() == two.keys()
        for key, value in one.items():
            assert two[key].item() == pytest.approx(value.item(), abs=1e-11), key


# --- whole runs


@pytest.mark.parametrize(("space", "precision"), [("lab", "fp32"), ("rgb", "bf16")])
def test_a_kill_changes_nothing(space: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {"task__name": "cyclegan", "model__color_space": space, "train__precision": precision}
    settings |= {"task__image_buffer_slots": 2, "data__image_size": 16}
    straight = run(tmp_path / "straight", **settings)
    killed = killed_run(tmp_path / "killed", monkeypatch, at=4, **settings)
    run(tmp_path / "killed", **settings)
    assert_bit_equal(straight, killed)
    assert learned(straight) == learned(killed)
    held = everything(straight)["/task/discriminator"]
    assert isinstance(held, Tensor)
    assert held.isfinite().any(dim=1).all()  # there was something to lose


def test_what_it_cannot_do_is_refused() -> None:
    with pytest.raises(UserError, match=r"model\.noise is 4, but task cyclegan takes none: try model\.noise 0"):
        tiny(task__name="cyclegan", model__noise=4)
    with pytest.raises(UserError, match=r"with task\.cycle_weight 0 there is no loss in the warm-up"):
        tiny(task__name="cyclegan", task__cycle_weight=0.0, task__warmup_steps=2)
