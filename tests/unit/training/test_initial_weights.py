"""A network that begins with another's weights, holds a part of them, or learns parts at rates of their own."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import alone_on_the_cpu, config_with, random_generator, tiny, write_snapshot
from runs import assert_bit_equal, everything, killed_run, learned, run
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from colordist.engine.network import Network
from colordist.errors import UserError
from colordist.models.autoencoder import Autoencoder, AutoencoderSettings
from colordist.models.factory import build_generator
from colordist.models.parts import freeze, part_of
from colordist.models.unet import UNet, UNetSettings
from colordist.optimizers import OptimizerConfig
from colordist.run.folder import RunFolder

SETTINGS: dict[str, Any] = {"task__name": "autoencoder", "model__name": "autoencoder", "optimizer__generator__lr": 0.01}


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with alone_on_the_cpu(monkeypatch):
        yield


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A snapshot of a network each of whose weights is random."""
    model, folder = tiny(**SETTINGS).model, tmp_path_factory.mktemp("before") / "snapshots" / "step-000007"
    write_snapshot(folder, model, random_generator(model, 0.1), step=7, image_size=32)
    return folder


def weights(folder: Path) -> dict[str, Tensor]:
    return {name.removeprefix("generator."): each for name, each in load_file(folder / "model.safetensors").items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor], part: str = "") -> bool:
    names = [name for name in one if name.startswith(part)]
    assert one.keys() == other.keys()
    assert names
    return all(torch.equal(one[name], other[name]) for name in names)


def refused(path: Path, **settings: Any) -> str:  # noqa: ANN401  any setting
    with pytest.raises(UserError) as refusal:
        run(path, **SETTINGS | settings)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


# --- beginning with a snapshot


def test_it_begins_with_the_weights_of_a_snapshot_or_of_a_runs_latest(before: Path, tmp_path: Path) -> None:
    one = run(tmp_path / "one", **SETTINGS, train__init_from=str(before))
    other = run(tmp_path / "other", **SETTINGS, train__init_from=str(before.parent.parent))
    assert same(weights(one.snapshots / "step-000000"), weights(before))  # the averaged copy
    assert not same(weights(one.snapshots / "latest"), weights(before))
    assert_bit_equal(one, other)
    assert learned(one) == learned(other)
    # The optimizer begins anew: in its first steps it warms up.
    assert one.records()[2]["step"] == 2
    assert one.records()[2]["optimizer/generator/lr"] == pytest.approx(0.01 * 2 / 51)


def test_a_kill_changes_nothing(before: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With everything on that is here: also before there is a checkpoint."""
    settings = SETTINGS | {"train__init_from": str(before), "train__freeze": ["encoder"]}
    settings["optimizer__generator__lr_scales"] = {"decoder": 0.5}
    straight = run(tmp_path / "straight", **settings)
    for at in (1, 4):
        broken = killed_run(tmp_path / "broken", monkeypatch, at=at, **settings)
    run(broken.path, **settings)
    assert learned(broken) == learned(straight)
    assert_bit_equal(straight, broken)
    cards = [folder.snapshots / "latest" / "README.md" for folder in (straight, broken)]
    assert cards[0].read_text() == cards[1].read_text()


def test_a_snapshot_that_has_changed_is_another_run(before: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(before, tmp_path / "copy")
    run(tmp_path / "run", **SETTINGS, train__init_from=str(copy), train__steps=3)
    write_snapshot(copy, tiny(**SETTINGS).model, build_generator(tiny(**SETTINGS).model), step=8)
    told = refused(tmp_path / "run", train__init_from=str(copy), train__steps=6)
    assert told.startswith("the snapshot that train.init_from names has changed since the run in")
    assert "name another --run.dir" in told


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"model__width": 8}, "model.width is 4 there, 8 here; of another shape: encoder.0.0.weight [4, 1, 3, 3] for "),
        (
            {"task__hints": True},
            "task.hints is False there, True here; of another shape: encoder.0.0.weight [4, 1, 3, 3]",
        ),
        ({"model__depth": 2}, "model.depth is 1 there, 2 here; missing: encoder.2.0.0.weight, "),
        ({"model__norm": "none"}, "model.norm is group there, none here; unexpected: decoder.0.1.1.bias, "),
        ({"model__color_space": "rgb"}, "model.color_space is lab there, rgb here; of another shape: decoder.1.weight"),
        ({"model__name": "unet"}, "model.name is autoencoder there, unet here; missing: first.0.0.weight, "),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_does_not_fit_is_told(settings: dict[str, Any], told: str, before: Path, tmp_path: Path) -> None:
    line = refused(tmp_path / "run", train__init_from=str(before), **settings)
    assert line.startswith(f"train.init_from: {before} doesn't fit ({told}")
    assert line.endswith("set these as there, or load what fits with train.init_strict false")
    assert not (tmp_path / "run").exists()


def test_the_first_names_and_how_many_more(before: Path, tmp_path: Path) -> None:
    line = refused(tmp_path / "run", train__init_from=str(before), model__name="unet")
    missing = line.partition("missing: ")[2].partition(";")[0]
    unet = UNet(UNetSettings(width=4, depth=1))
    assert missing.count(",") == 2
    assert missing.endswith(f" and {len(unet.state_dict()) - 3} more")


def test_a_snapshot_that_lacks_a_tensor(before: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(before, tmp_path / "copy")
    kept = weights(copy)
    del kept["decoder.1.bias"]
    kept = {f"generator.{name}": each for name, each in kept.items()}
    save_file(kept, copy / "model.safetensors")
    text = (copy / "model.json").read_text()
    (copy / "model.json").write_text("\n".join(line for line in text.splitlines() if "sha256" not in line))
    assert "doesn't fit (missing: decoder.1.bias)" in refused(tmp_path / "run", train__init_from=str(copy))


def test_what_fits_is_taken_when_asked_for(before: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = SETTINGS | {"train__init_from": str(before), "train__init_strict": False, "model__color_space": "rgb"}
    begun = weights(run(tmp_path / "run", **settings).snapshots / "step-000000")
    for name, value in weights(before).items():
        assert torch.equal(begun[name], value) == (not name.startswith("decoder.1.")), name
    assert not begun["decoder.1.weight"].any()  # as a new network begins
    (told,) = [each.message for each in caplog.records if "init_from" in each.message]
    assert f"loaded {len(begun) - 2} of {len(begun)} tensors" in told
    assert "of another shape: decoder.1.weight [2, 4, 1, 1] for [3, 4, 1, 1], decoder.1.bias [2] for [3]" in told


def test_nothing_fits(before: Path, tmp_path: Path) -> None:
    settings = {"train__init_strict": False, "model__name": "unet"}
    assert f"nothing in {before} fits" in refused(tmp_path / "run", train__init_from=str(before), **settings)


def test_no_snapshot(tmp_path: Path) -> None:
    assert "there is no folder" in refused(tmp_path / "run", train__init_from=str(tmp_path / "nowhere"))


# --- parts


def test_every_weight_is_of_one_part() -> None:
    for module in (UNet(UNetSettings(blocks=1, attention_level=1, noise=2)), Autoencoder(AutoencoderSettings())):
        parts = {name: part_of(module, name) for name, _ in module.named_parameters()}
        names = ("first.", "down.") if isinstance(module, UNet) else ("encoder.",)
        assert {name for name, part in parts.items() if part == "encoder"} == {n for n in parts if n.startswith(names)}
        assert set(parts.values()) == {"encoder", "decoder"}


@pytest.mark.parametrize(("frozen", "free"), [("encoder", "decoder"), ("decoder", "encoder")])
def test_a_frozen_part_stays_as_it_was(frozen: str, free: str, before: Path, tmp_path: Path) -> None:
    settings = {"train__init_from": str(before), "train__freeze": [frozen], "optimizer__generator__clip_norm": 0.1}
    folder = run(tmp_path / "run", **SETTINGS, **settings)
    for step in ("000000", "000006"):
        assert same(weights(folder.snapshots / f"step-{step}"), weights(before), frozen)
    state, start = everything(folder), weights(before)
    for name, value in start.items():
        now = state[f"/networks/generator/module/{name}"]
        assert isinstance(now, Tensor)
        assert torch.equal(now, value) == name.startswith(frozen), name
    # No moments are kept for what doesn't learn.
    moments = [
        key for key in state if key.startswith("/networks/generator/optimizer/state/") and key.endswith("exp_avg")
    ]
    assert len(moments) == sum(name.startswith(free) for name in start)


def test_a_frozen_part_has_no_share_in_clipping(before: Path, tmp_path: Path) -> None:
    """The gradient's norm is that of what learns: with the encoder it is longer."""
    norms = {}
    for name, parts in ("whole", []), ("held", ["encoder"]):
        settings = SETTINGS | {"train__init_from": str(before), "train__freeze": parts, "log__every": 1}
        records = run(tmp_path / name, **settings, train__steps=1).records()
        (norms[name],) = [
            record["diagnostics/generator/gradient_norm"] for record in records if "optimizer/generator/lr" in record
        ]
    assert 0 < norms["held"] < norms["whole"]


def test_a_frozen_part_computes_the_same_in_training_as_later() -> None:
    module = Autoencoder(AutoencoderSettings(width=4, depth=1))
    freeze(module, ["encoder"])
    assert not any(layer.training for layer in module.encoder.modules())
    assert module.training
    assert all(layer.training for layer in module.decoder.modules())


def test_a_part_learns_at_its_own_rate() -> None:
    """Adam's first step moves each weight by its rate, whatever the gradient."""
    module = Autoencoder(AutoencoderSettings(width=4, depth=1)).double()
    nn.init.ones_(next(module.decoder[-1].parameters()))
    start = {name: value.clone() for name, value in module.state_dict().items()}
    network = Network(module, OptimizerConfig(lr=0.01, warmup_steps=1), 9, lr_scales={"encoder": 0.1})
    network.begin_phase(0)  # half of the highest rate
    module(torch.rand(2, 1, 8, 8, dtype=torch.float64)).square().mean().backward()
    network.optimizer.step()
    for part, rate in ("encoder", 0.0005), ("decoder", 0.005):
        moved = [(value - start[name]).abs().max() for name, value in module.state_dict().items() if part in name]
        assert torch.stack(moved).max().item() == pytest.approx(rate, rel=1e-3)


def test_without_parts_there_is_one_group_of_all_weights() -> None:
    module = UNet(UNetSettings())
    network = Network(module, OptimizerConfig(), 9)
    plain = torch.optim.Adam(module.parameters(), lr=1e-3, betas=(0.5, 0.99), fused=True)
    assert network.optimizer.state_dict() == plain.state_dict()
    assert not network.has_parts


def test_what_is_frozen_stays_so_when_its_network_wakes() -> None:
    module = UNet(UNetSettings())
    network = Network(module, OptimizerConfig(), 9, frozen=["decoder"])
    for trainable in (False, True):
        network.set_trainable(trainable)
        for name, parameter in module.named_parameters():
            assert parameter.requires_grad == (trainable and name.startswith(("first.", "down."))), name
    assert network.trainable_parameter_count() == sum(p.numel() for p in module.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"train.freeze": ["encodr"]}, "train.freeze has 'encodr', but the parts are encoder and decoder"),
        ({"train.freeze": ["encoder", "decoder"]}, "train.freeze names both parts, so nothing would be trained"),
        ({"optimizer.generator.lr_scales": {"encodr": 1.0}}, "lr_scales has 'encodr', but the parts are encoder and"),
        ({"optimizer.generator.lr_scales": {"encoder": 0.0}}, "lr_scales has encoder 0.0, but must be above 0"),
        (
            {"train.freeze": ["encoder"], "optimizer.generator.lr_scales": {"encoder": 0.5}},
            "lr_scales has encoder, which train.freeze freezes",
        ),
        ({"data.fraction": 0.0}, "data.fraction is 0.0, but must be above 0 and at most 1"),
        ({"data.fraction": 1.5}, "data.fraction is 1.5, but must be above 0 and at most 1"),
    ],
)
def test_mistakes_are_one_line(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError) as refusal:
        config_with(settings)
    assert told in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_deepspeed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colordist.engine.select.zero_stage", lambda: 1)
    assert "don't work with DeepSpeed" in refused(tmp_path / "run", train__freeze=["encoder"])
    assert RunFolder(tmp_path / "run").state == "new"
