"""Snapshots: the same answers as the network that was saved, without any trainer code; damage is one line."""

import errno
import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
import torch
from faults import counting, refusing, watched
from safetensors.torch import save_file
from torch import nn

from colordist.config import ModelConfig, Norm, RunError, UserError
from colordist.models import build_generator
from colordist.run import snapshot

CONFIG = ModelConfig(width=4, depth=1)


def network(config: ModelConfig) -> nn.Module:
    """One whose every weight counts."""
    torch.manual_seed(0)
    module = build_generator(config)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    return module.eval()


@pytest.mark.parametrize("name", ["unet", "autoencoder"])
@pytest.mark.parametrize("norm", ["group", "instance"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_round_trip(name: Literal["unet", "autoencoder"], norm: Norm, dtype: torch.dtype, tmp_path: Path) -> None:
    config = ModelConfig(name=name, norm=norm, width=4, depth=2, bottleneck=5, color_space="rgb")
    module = network(config).to(dtype)
    snapshot.write(tmp_path / "step-000005", module, config, {"step": 5, "scores": {"mae": 0.5}})
    found, settings, about = snapshot.read(tmp_path / "step-000005")
    assert settings == config
    assert (about["step"], about["scores"]) == (5, {"mae": 0.5})
    grey = torch.rand(2, 1, 8, 8, dtype=dtype)
    with torch.no_grad():
        assert torch.equal(found(grey), module(grey))
    assert not found.training
    assert not any(parameter.requires_grad for parameter in found.parameters())


def test_latest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no snapshot yet"):
        snapshot.latest(tmp_path)
    for step in (5, 10):
        snapshot.write(tmp_path / "snapshots" / f"step-{step:06d}", network(CONFIG), CONFIG, {"step": step})
        assert snapshot.latest(tmp_path).resolve().name == f"step-{step:06d}"
        assert snapshot.read(snapshot.latest(tmp_path))[2]["step"] == step
    # A run folder may be moved.
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    assert snapshot.read(snapshot.latest(moved))[2]["step"] == 10


class Gone(BaseException):
    """The process is killed here."""


def step_of_latest(run: Path) -> int:
    """The step of the complete snapshot that `latest` leads to."""
    return int(snapshot.read(run / "snapshots" / "latest")[2]["step"])


@pytest.mark.parametrize("can_exchange", [True, False])
def test_killed_at_any_operation_a_replaced_snapshot_is_complete(
    can_exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old one or the new one; and what is left of it is gone after the next one."""
    if not can_exchange:
        monkeypatch.setattr("colordist.files.weights.exchange", lambda first, second: False)
    module, done = network(CONFIG), list[str]()

    def write(run: Path, step: int) -> None:
        snapshot.write(run / "snapshots" / "step-000005", module, CONFIG, {"step": step}, "a card")

    def kill(at: int) -> Callable[[str], None]:
        count = itertools.count()

        def fault(_: str) -> None:
            if next(count) >= at:
                raise Gone

        return fault

    write(tmp_path / "counted", 1)
    with watched(counting(done)):
        write(tmp_path / "counted", 2)
    found = set()
    for at in range(len(done)):
        run = tmp_path / str(at)
        write(run, 1)
        with watched(kill(at)), pytest.raises(Gone):
            write(run, 2)
        found.add(step_of_latest(run))
        write(run, 3)
        assert step_of_latest(run) == 3
        assert sorted(path.name for path in (run / "snapshots").iterdir()) == ["latest", "step-000005"]
    assert found == {1, 2}


def test_a_read_that_fails_is_no_damage(tmp_path: Path) -> None:
    snapshot.write(tmp_path / "a", network(CONFIG), CONFIG, {"step": 5})
    for code, told in ((errno.ESTALE, "Stale file handle"), (errno.EACCES, "Permission denied"), (0, "out of memory")):
        for at in range(4):
            with (
                watched(refusing(at, code), reads=True),
                pytest.raises(RunError, match=rf"a can't be read now \({told}\)$"),
            ):
                snapshot.read(tmp_path / "a")


def test_what_is_no_snapshot_is_not_replaced(tmp_path: Path) -> None:
    """Nor is one that holds something else, too; nor what is named `latest` and no link."""
    folder = tmp_path / "a"
    snapshot.write(folder, network(CONFIG), CONFIG, {"step": 5})
    (folder / "notes.txt").write_text("mine")
    before = (folder / "model.json").read_bytes()
    with pytest.raises(UserError, match="or holds other files, too: name another folder"):
        snapshot.write(folder, network(CONFIG), CONFIG, {"step": 6})
    assert (folder / "model.json").read_bytes() == before
    (tmp_path / "latest").unlink()
    (tmp_path / "latest").write_text("mine")
    with pytest.raises(UserError, match="latest is in the way"):
        snapshot.write(tmp_path / "b", network(CONFIG), CONFIG, {"step": 6})
    assert (tmp_path / "latest").read_text() == "mine"


def test_no_trainer_code_is_needed() -> None:
    code = (
        "import sys, colordist.run.snapshot\n"
        "rooms = {name.split('.')[1] for name in sys.modules if name.startswith('colordist.')}\n"
        "print(sorted(rooms & {'trainer', 'engine', 'tasks', 'build', 'tracking', 'cli'}), 'accelerate' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "[] False\n"


@pytest.mark.parametrize("read", [snapshot.read, snapshot.read_weights])
def test_batch_normalisation_no_longer_exists(read: Callable[[Path], object], tmp_path: Path) -> None:
    snapshot.write(tmp_path / "step-000005", network(CONFIG), CONFIG, {"step": 5})
    rewrite(lambda about: about["model"].update(norm="batch"))(tmp_path / "step-000005")  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"model.norm batch, which no longer exists: .* model.norm group$"):
        read(tmp_path / "step-000005")


def rewrite(change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    """Change model.json."""

    def damage(folder: Path) -> None:
        about = json.loads((folder / "model.json").read_text())
        change(about)
        (folder / "model.json").write_text(json.dumps(about))

    return damage


def halve(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])

    return damage


def flip(name: str) -> Callable[[Path], None]:
    """One bit of the last byte: safetensors doesn't notice."""

    def damage(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[-1] ^= 1
        (folder / name).write_bytes(data)

    return damage


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (lambda folder: folder.rename(folder.with_name("gone")), "holds no snapshot"),
    "no description": (lambda folder: (folder / "model.json").unlink(), "holds no snapshot"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "holds no snapshot"),
    "half a description": (halve("model.json"), "is damaged"),
    "a flipped bit in the weights": (
        flip("model.safetensors"),
        "is damaged: model.safetensors is not what was written",
    ),
    "no digest of the weights": (rewrite(lambda about: about.update(sha256="no")), "is not what was written"),
    "nested": (lambda folder: (folder / "model.json").write_text("[" * 100_000), "is damaged"),
    "half of the weights": (halve("model.safetensors"), "is damaged"),
    "no text": (lambda folder: (folder / "model.json").write_bytes(b"\xff\x00"), "is damaged"),
    "a list": (lambda folder: (folder / "model.json").write_text("[1]"), "is damaged"),
    "no model": (rewrite(lambda about: about.pop("model")), "is damaged"),
    "unknown key": (rewrite(lambda about: about["model"].update(magic=1)), "is damaged"),  # type: ignore[attr-defined]
    "unknown network": (rewrite(lambda about: about["model"].update(name="x")), "is damaged"),  # type: ignore[attr-defined]
    "other widths": (rewrite(lambda about: about["model"].update(width=8)), "is damaged"),  # type: ignore[attr-defined]
    "newer format": (rewrite(lambda about: about.update(format=99)), "has snapshot format 99, but this version reads"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_one_line(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "step-000005"
    snapshot.write(folder, network(CONFIG), CONFIG, {})
    damage, told = DAMAGES[name]
    damage(folder)
    with pytest.raises(UserError) as refused:
        snapshot.read(folder)
    message = str(refused.value)
    assert "\n" not in message
    assert str(folder) in message
    assert told in message


def test_weights_of_nothing(tmp_path: Path) -> None:
    snapshot.write(tmp_path / "a", network(CONFIG), CONFIG, {})
    save_file({}, tmp_path / "a" / "model.safetensors")
    rewrite(lambda about: about.pop("sha256"))(tmp_path / "a")
    with pytest.raises(UserError, match="is damaged"):
        snapshot.read(tmp_path / "a")


def test_an_older_one_without_a_digest_is_read(tmp_path: Path) -> None:
    module = network(CONFIG)
    snapshot.write(tmp_path / "a", module, CONFIG, {"step": 5})
    rewrite(lambda about: about.pop("sha256"))(tmp_path / "a")
    found, _, about = snapshot.read(tmp_path / "a")
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in found.state_dict().items())
    assert snapshot.step_of(tmp_path / "a", about) == 5


@pytest.mark.parametrize("about", [{}, {"step": "5"}, {"step": None}])
def test_a_step_that_is_not_there_is_one_line(about: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^the snapshot in \S+a is damaged: model\.json has no step$"):
        snapshot.step_of(tmp_path / "a", about)
