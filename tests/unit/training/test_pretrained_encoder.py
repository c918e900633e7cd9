"""Training from a pretrained encoder: its weights are loaded before everything else, and a run is bound to them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import alone_on_the_cpu, prepared, random_batch, timm_weights, tiny
from runs import assert_bit_equal, killed_run, run
from safetensors.torch import load_file

from colordist.errors import UserError
from colordist.run.folder import RunFolder
from colordist.run.identity import fingerprint, identity
from colordist.training.build import build_trainer
from colordist.training.build_task import build_networks, build_task, load_pretrained

ENCODER = "test_resnet"
SETTINGS: dict[str, Any] = {
    "task__name": "autoencoder",
    "model__name": "timm_unet",
    "model__encoder": ENCODER,
    "data__image_size": 64,
    "train__steps": 3,
    "evaluate__every": 3,
}


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with alone_on_the_cpu(monkeypatch):
        yield


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return timm_weights(tmp_path_factory.mktemp("weights") / "model.safetensors", ENCODER)


def test_the_network_and_its_ema_begin_with_it(file: Path, tmp_path: Path) -> None:
    config = tiny(**SETTINGS, model__weights=str(file), run__dir=str(tmp_path))
    trainer = build_trainer(config, RunFolder(tmp_path))
    whole, network = load_file(file), trainer.engine.networks["generator"]
    assert network.ema is not None
    for module in (network.module, network.ema.module):
        found = module.state_dict()
        for name in ("conv1.0.weight", "bn1.running_mean", "layer4.0.conv1.weight"):
            assert torch.equal(found[f"encoder.body.{name}"], whole[name])
    assert trainer.lock is not None
    trainer.lock.release()
    trainer.engine.close()


def test_all_else_depends_on_the_seed_alone(file: Path) -> None:
    first, second = (build_task(tiny(**SETTINGS, model__weights=weights)) for weights in (str(file), "pretrained"))
    engine, _, _ = prepared(tiny())
    digest = load_pretrained(first, tiny(), engine)
    assert digest is not None
    assert load_pretrained(first, tiny(), engine) == digest
    expected = second.networks["generator"].module.state_dict()
    for name, value in first.networks["generator"].module.state_dict().items():
        assert torch.equal(value, expected[name]) or name.startswith("encoder.body"), name
    networks = build_networks(first, tiny(**SETTINGS))
    engine.prepare(first, networks)
    assert engine.step(first, [random_batch(2, 64, dtype=torch.float32)], 0)["loss/generator/l1"] > 0


def test_a_kill_changes_nothing_and_the_file_may_move(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = run(tmp_path / "straight", **SETTINGS, model__weights=str(file))
    broken = killed_run(tmp_path / "broken", monkeypatch, at=1, **SETTINGS, model__weights=str(file))
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(file.read_bytes())
    run(broken.path, **SETTINGS, model__weights=str(moved))
    assert_bit_equal(straight, broken)


def test_other_weights_are_another_run(file: Path, tmp_path: Path) -> None:
    changing = tmp_path / "model.safetensors"
    changing.write_bytes(file.read_bytes())
    run(tmp_path / "run", **SETTINGS, model__weights=str(changing))
    timm_weights(changing, ENCODER, seed=2)
    more = SETTINGS | {"train__steps": 6}
    with pytest.raises(UserError, match=r"^the pretrained weights have changed since the run in .*: name another"):
        run(tmp_path / "run", **more, model__weights=str(changing))
    with pytest.raises(UserError, match=r"model.weights was pretrained, now none"):
        run(tmp_path / "run", **more, model__weights="none")


def test_a_snapshot_fits_wherever_its_encoder_came_from(file: Path, tmp_path: Path) -> None:
    before = run(tmp_path / "before", **SETTINGS, model__weights=str(file))
    other = timm_weights(tmp_path / "other.safetensors", ENCODER, seed=2)
    after = run(tmp_path / "after", **SETTINGS, model__weights=str(other), train__init_from=str(before.path))
    first, last = after.snapshots / "step-000000", before.snapshots / "latest"
    assert (first / "model.safetensors").read_bytes() == (last / "model.safetensors").read_bytes()
    with pytest.raises(UserError, match="doesn't fit"):
        run(tmp_path / "none", **SETTINGS, model__weights="none", train__init_from=str(before.path))


def test_identity() -> None:
    usual, file, none = (tiny(**SETTINGS, model__weights=each) for each in ("pretrained", "a/file", "none"))
    assert identity(file) == identity(usual) != identity(none)
    assert fingerprint(file) == fingerprint(usual) != fingerprint(none)
    assert identity(tiny(**SETTINGS, model__weights="a/file", model__sha256="0" * 64)) == identity(usual)


def test_random_weights_have_no_digest() -> None:
    engine, task, _ = prepared(tiny(**SETTINGS, model__weights="none"))
    assert load_pretrained(task, tiny(), engine) is None
