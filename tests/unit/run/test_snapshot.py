"""Snapshots: the same answers as the network that was saved, without any trainer code; damage is one line."""

import dataclasses
import errno
import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from faults import counting, refusing, watched
from helpers import config_with, random_generator, tiny, write_snapshot
from safetensors.torch import load_file, save_file

from colordist.errors import RunError, UserError
from colordist.models.blocks import Norm
from colordist.models.unet import UNetSettings
from colordist.run import snapshot
from colordist.training.build_task import build_task

SETTINGS = UNetSettings(name="unet", width=4, depth=1)


def write(folder: Path, **about: Any) -> None:  # noqa: ANN401  any JSON
    write_snapshot(folder, SETTINGS, random_generator(SETTINGS), **about)


@pytest.mark.parametrize("name", ["unet", "autoencoder"])
@pytest.mark.parametrize("norm", ["group", "instance"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_round_trip(name: str, norm: Norm, dtype: torch.dtype, tmp_path: Path) -> None:
    settings = config_with(
        {
            "model.name": name,
            "model.norm": norm,
            "model.width": 4,
            "model.depth": 2,
            "model.bottleneck": 5,
            "model.color_space": "rgb",
        }
    ).model
    module = random_generator(settings).to(dtype)
    write_snapshot(tmp_path / "step-000005", settings, module, step=5, scores={"mae": 0.5})
    found = snapshot.read(tmp_path / "step-000005")
    assert found.task.model == settings
    assert (found.step, found.about["scores"]) == (5, {"mae": 0.5})
    grey = torch.rand(2, 1, 8, 8, dtype=dtype)
    with torch.no_grad():
        assert torch.equal(found.sample(grey), module(grey))
    assert not found.networks.training
    assert not any(parameter.requires_grad for parameter in found.networks.parameters())


@pytest.mark.parametrize("task", ["autoencoder", "cgan", "cyclegan", "flow"])
def test_every_task_comes_back(task: str, tmp_path: Path) -> None:
    before = build_task(tiny(task__name=task))
    networks = {name: before.networks[name].module for name in before.sampled}
    snapshot.write(tmp_path / "a", before, networks, {"step": 5})
    found = snapshot.read(tmp_path / "a")
    assert type(found.task) is type(before)
    assert (found.task.settings, found.task.model) == (before.settings, before.model)
    assert found.about["requires"] == ["colordist"]
    assert {*found.networks} == {*before.sampled}


def test_one_of_version_01_is_read(tmp_path: Path) -> None:
    """Format 1: the weights of one generator by their bare names, all keys of all architectures, and no task."""
    module = random_generator(SETTINGS)
    write(tmp_path / "a", step=5, image_size=32)
    save_file(module.state_dict(), tmp_path / "a" / "model.safetensors")
    about = {"format": 1, "model": {**dataclasses.asdict(SETTINGS), "refinement": 1}, "step": 5, "image_size": 32}
    (tmp_path / "a" / "model.json").write_text(json.dumps(about))
    found, grey = snapshot.read(tmp_path / "a"), torch.rand(2, 1, 8, 8)
    assert (found.step, found.about["image_size"], found.task.model) == (5, 32, SETTINGS)
    with torch.no_grad():
        assert torch.equal(found.sample(grey), module(grey))
    weights, settings, _ = snapshot.read_weights(tmp_path / "a")
    assert settings == SETTINGS
    assert all(torch.equal(value, weights[name]) for name, value in module.state_dict().items())


def test_latest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no snapshot yet"):
        snapshot.latest(tmp_path)
    for step in (5, 10):
        write(tmp_path / "snapshots" / f"step-{step:06d}", step=step)
        assert snapshot.latest(tmp_path).resolve().name == f"step-{step:06d}"
        assert snapshot.read(snapshot.latest(tmp_path)).step == step
    # A run folder may be moved.
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    assert snapshot.read(snapshot.latest(moved)).step == 10


class Gone(BaseException):
    """The process is killed here."""


def step_of_latest(run: Path) -> int:
    """The step of the complete snapshot that `latest` leads to."""
    return snapshot.read(run / "snapshots" / "latest").step


@pytest.mark.parametrize("can_exchange", [True, False])
def test_killed_at_any_operation_a_replaced_snapshot_is_complete(
    can_exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old one or the new one; and what is left of it is gone after the next one."""
    if not can_exchange:
        monkeypatch.setattr("colordist.files.weights.exchange", lambda first, second: False)
    done = list[str]()

    def write_step(run: Path, step: int) -> None:
        write(run / "snapshots" / "step-000005", step=step)

    def kill(at: int) -> Callable[[str], None]:
        count = itertools.count()

        def fault(_: str) -> None:
            if next(count) >= at:
                raise Gone

        return fault

    write_step(tmp_path / "counted", 1)
    with watched(counting(done)):
        write_step(tmp_path / "counted", 2)
    found = set()
    for at in range(len(done)):
        run = tmp_path / str(at)
        write_step(run, 1)
        with watched(kill(at)), pytest.raises(Gone):
            write_step(run, 2)
        found.add(step_of_latest(run))
        write_step(run, 3)
        assert step_of_latest(run) == 3
        assert sorted(path.name for path in (run / "snapshots").iterdir()) == ["latest", "step-000005"]
    assert found == {1, 2}


def test_a_read_that_fails_is_no_damage(tmp_path: Path) -> None:
    write(tmp_path / "a", step=5)
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
    write(folder, step=5)
    (folder / "notes.txt").write_text("mine")
    before = (folder / "model.json").read_bytes()
    with pytest.raises(UserError, match="or holds other files, too: name another folder"):
        write(folder, step=6)
    assert (folder / "model.json").read_bytes() == before
    (tmp_path / "latest").unlink()
    (tmp_path / "latest").write_text("mine")
    with pytest.raises(UserError, match="latest is in the way"):
        write(tmp_path / "b", step=6)
    assert (tmp_path / "latest").read_text() == "mine"


def test_no_trainer_code_is_needed() -> None:
    code = (
        "import sys, colordist.run.snapshot\n"
        "rooms = {name.split('.')[1] for name in sys.modules if name.startswith('colordist.')}\n"
        "print(sorted(rooms & {'training', 'engine', 'evaluation', 'tracking', 'cli'}), 'accelerate' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "[] False\n"


@pytest.mark.parametrize("read", [snapshot.read, snapshot.read_weights])
def test_batch_normalisation_no_longer_exists(read: Callable[[Path], object], tmp_path: Path) -> None:
    write(tmp_path / "step-000005", step=5)
    rewrite(lambda about: about.update(format=1, model={"name": "unet", "norm": "batch"}))(tmp_path / "step-000005")
    with pytest.raises(UserError, match=r"model.norm batch, which no longer exists: .* model.norm group$"):
        read(tmp_path / "step-000005")


def rewrite(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
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
    "a model that is none": (rewrite(lambda about: about.update(format=1, model=5)), "is damaged"),
    "no model": (rewrite(lambda about: about.pop("model")), "is damaged"),
    "unknown key": (rewrite(lambda about: about["model"].update(magic=1)), "unknown key model.magic"),
    "unknown network": (
        rewrite(lambda about: about["model"].update(name="x")),
        "needs model.name x of another package",
    ),
    "other widths": (rewrite(lambda about: about["model"].update(width=8)), "is damaged"),
    "no task": (rewrite(lambda about: about.pop("task")), "is damaged"),
    "out of range": (rewrite(lambda about: about["model"].update(width=0)), "model.width is 0"),
    "newer format": (rewrite(lambda about: about.update(format=99)), "has snapshot format 99, but this version reads"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_one_line(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "step-000005"
    write(folder)
    damage, told = DAMAGES[name]
    damage(folder)
    with pytest.raises(UserError) as refused:
        snapshot.read(folder)
    message = str(refused.value)
    assert "\n" not in message
    assert str(folder) in message
    assert told in message


def test_weights_of_nothing(tmp_path: Path) -> None:
    write(tmp_path / "a")
    save_file({}, tmp_path / "a" / "model.safetensors")
    rewrite(lambda about: about.pop("sha256"))(tmp_path / "a")
    with pytest.raises(UserError, match="is damaged"):
        snapshot.read(tmp_path / "a")


def test_an_older_one_without_a_digest_is_read(tmp_path: Path) -> None:
    write(tmp_path / "a", step=5)
    rewrite(lambda about: about.pop("sha256"))(tmp_path / "a")
    expected = load_file(tmp_path / "a" / "model.safetensors")
    assert all(
        torch.equal(value, expected[name])
        for name, value in snapshot.read(tmp_path / "a").networks.state_dict().items()
    )


@pytest.mark.parametrize("about", [{}, {"step": None}])
def test_a_step_that_is_not_there_is_one_line(about: dict[str, object], tmp_path: Path) -> None:
    write(tmp_path / "a", **about)
    with pytest.raises(UserError, match=r"^the snapshot in \S+a is damaged: model\.json has no step$"):
        _ = snapshot.read(tmp_path / "a").step


# --- bundled models


def half_precision(folder: Path) -> None:
    """Store the weights of a snapshot in half precision."""
    tensors = {name: each.half() for name, each in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors")
    about = json.loads((folder / "model.json").read_text()) | {"sha256": None}
    (folder / "model.json").write_text(json.dumps(about))


def test_half_precision_only_saves_space(tmp_path: Path) -> None:
    write(tmp_path / "half", step=1)
    half_precision(tmp_path / "half")
    assert {each.dtype for each in snapshot.read(tmp_path / "half").networks.state_dict().values()} == {torch.float32}


def test_a_bundled_model_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "BUNDLED", tmp_path / "bundled")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"there is no folder tiny: give the folder of a run, or of a snapshot$"):
        snapshot.find(Path("tiny"))
    write(tmp_path / "bundled" / "tiny", step=1)
    assert snapshot.find(Path("tiny")) == tmp_path / "bundled" / "tiny"
    with pytest.raises(UserError, match=r"or of a snapshot, or a bundled model's name: tiny$"):
        snapshot.find(Path("tny"))
    (tmp_path / "tiny").mkdir()
    assert snapshot.find(Path("tiny")) == tmp_path / "bundled" / "tiny"  # a folder of photographs doesn't
    (tmp_path / "tiny").rmdir()
    write(tmp_path / "tiny", step=1)
    assert snapshot.find(Path("tiny")) == Path("tiny")  # a snapshot goes first


@pytest.mark.parametrize("part", ["config.yaml", "snapshots/notes.txt"])
def test_a_run_goes_before_a_bundled_model_even_without_a_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path("photos-small", part)
    file.parent.mkdir(parents=True)
    file.touch()
    with pytest.raises(UserError, match="photos-small holds no snapshot yet: train it first"):
        snapshot.find(Path("photos-small"))
