"""Whole runs, small enough for a second: what they leave behind, and that a kill changes nothing."""

import hashlib
import itertools
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from helpers import alone_on_the_cpu, tiny
from PIL import Image
from runs import assert_bit_equal, everything, killed_run, learned, run
from torch import Tensor

from colordist.config import as_dict
from colordist.engine.runtime import Engine
from colordist.errors import RunError, UserError
from colordist.evaluation.build_source import build_source
from colordist.keys import flatten
from colordist.run import checkpoint, snapshot
from colordist.run.folder import RunFolder
from colordist.training.build import build_trainer
from colordist.training.trainer import Diverged, Trainer

Kind = Literal["autoencoder", "cgan"]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with alone_on_the_cpu(monkeypatch):
        yield


# --- what a run leaves behind


@pytest.mark.parametrize("task", ["autoencoder", "cgan"])
def test_files_of_a_run(task: Kind, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run(tmp_path / "run", task__name=task, evaluate__every=4)
    names = {str(path.relative_to(folder.path)) for path in folder.path.rglob("*")}
    steps = ["000000", "000004", "000006"]  # at the start, each interval, the last step
    assert names >= {"config.yaml", "metrics.jsonl", "finished", "snapshots/latest"}
    assert names >= {f"samples/step-{step}.png" for step in steps}
    assert names >= {f"snapshots/step-{step}/model.{kind}" for step in steps for kind in ("json", "safetensors")}
    assert {path.name for path in folder.checkpoints.iterdir()} == {"step-000003", "step-000006"}
    assert json.loads((folder.path / "finished").read_text()) == {"step": 6}
    assert not [name for name in names if name.endswith(".tmp")]

    settings = flatten(folder.settings())
    assert settings == flatten(as_dict(tiny(run__dir=str(folder.path), task__name=task, evaluate__every=4)))
    # Three rows of four test images.
    assert Image.open(folder.samples / "step-000006.png").size == (4 * 32, 3 * 32)
    said = capsys.readouterr().out
    assert "grey (baseline)" in said  # the scores, beside those of the reference answers
    assert "4 images a step" in said


def test_samples_are_spread_over_the_test_split(tmp_path: Path) -> None:
    """20 test images: of a sorted folder, the first 16 could lack whole classes."""
    folder = run(tmp_path / "run", train__steps=1, data__test_images=20)
    grid = np.asarray(Image.open(folder.samples / "step-000001.png"))
    test = build_source(tiny(data__test_images=20).data, Engine("fp32")).test
    shown = [0, 1, 2, 3, 5, 6, 7, 8, 10, 11, 12, 13, 15, 16, 17, 18]
    assert np.array_equal(grid[64:], np.concatenate([test[index] for index in shown], axis=1))


def test_records_of_a_run(tmp_path: Path) -> None:
    records = run(tmp_path / "run", optimizer__generator__warmup_steps=3, optimizer__generator__lr=0.4).records()
    losses = [record for record in records if "loss/generator/l1" in record]
    assert [record["step"] for record in losses] == [2, 4, 6]
    assert [record["images"] for record in losses] == [8, 16, 24]
    assert losses[0]["optimizer/generator/lr"] == pytest.approx(0.2)  # the rate of the second step: two quarters
    assert all(record["pace/images_per_second"] > 0 for record in losses)
    assert all(0 < record["pace/waiting_for_data"] < 1 for record in losses)
    assert all(50 < record["pace/peak_memory_mb"] < 50_000 for record in losses)
    assert losses[0]["pace/peak_memory_mb"] <= losses[-1]["pace/peak_memory_mb"]
    assert {"loss/generator/adversarial", "loss/discriminator/fake", "diagnostics/generator/gradient_norm"} <= losses[
        0
    ].keys()
    scores = [record for record in records if "score/mae" in record]
    assert [record["step"] for record in scores] == [0, 6]
    (references,) = [record for record in records if "reference/grey/mae" in record]
    assert references["step"] == 0
    # A new network answers grey: almost the score of the floor, but for the roundings on the way through Lab.
    assert scores[0]["score/mae"] == pytest.approx(references["reference/grey/mae"], abs=0.05)


def test_what_is_logged_is_the_mean_since_the_last_line(tmp_path: Path) -> None:
    each = [r for r in run(tmp_path / "each", log__every=1).records() if "loss/generator/l1" in r]
    mean = [r for r in run(tmp_path / "mean", log__every=4).records() if "loss/generator/l1" in r]
    assert [record["step"] for record in mean] == [4, 6]
    for key in ("loss/generator/l1", "loss/discriminator/real"):
        assert mean[0][key] == pytest.approx(sum(record[key] for record in each[:4]) / 4, rel=1e-6)
        assert mean[1][key] == pytest.approx(sum(record[key] for record in each[4:]) / 2, rel=1e-6)


def test_the_snapshot_is_the_average(tmp_path: Path) -> None:
    folder = run(tmp_path / "run")
    trained = snapshot.read(snapshot.latest(folder.path))
    module, state, about = trained.networks["generator"], everything(folder), trained.about
    for key, value in module.state_dict().items():
        assert torch.equal(value, state[f"/networks/generator/ema/{key}"])  # type: ignore[arg-type]
    weights = {key: state[f"/networks/generator/module/{key}"] for key in module.state_dict()}
    assert not all(torch.equal(value, weights[key]) for key, value in module.state_dict().items())  # type: ignore[arg-type]
    assert trained.task.model == tiny().model
    assert (about["step"], about["image_size"]) == (6, 32)
    assert about["scores"]["mae"] == folder.records()[-1]["score/mae"]


# --- the same again


def test_the_same_seed_gives_the_same_bits(tmp_path: Path) -> None:
    first, second, third = (run(tmp_path / name, seed=seed) for name, seed in (("a", 3), ("b", 3), ("c", 4)))
    assert learned(first) == learned(second)
    assert_bit_equal(first, second)
    assert learned(first) != learned(third)


@pytest.mark.parametrize("task", ["autoencoder", "cgan"])
@pytest.mark.parametrize("log_every", [2, 4])  # the interval from 2 to 4 spans the checkpoint at 3
def test_a_kill_changes_nothing(task: Kind, log_every: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"task__name": task, "log__every": log_every, "evaluate__every": 2}
    settings |= {"task__warmup_steps": 1} if task == "cgan" else {}
    straight = run(tmp_path / "straight", **settings)
    broken = killed_run(tmp_path / "broken", monkeypatch, at=4, **settings)
    assert not broken.is_finished(6)
    assert max(record["step"] for record in broken.records()) == 4  # after the checkpoint: will be done again
    run(broken.path, **settings)
    assert broken.is_finished(6)
    assert learned(broken) == learned(straight)
    assert_bit_equal(straight, broken)


def test_a_kill_does_not_change_what_noise_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"model__noise": 2, "task__candidates": 3, "task__warmup_steps": 1}
    straight = run(tmp_path / "straight", **settings)
    broken = killed_run(tmp_path / "broken", monkeypatch, at=4, **settings)
    run(broken.path, **settings)
    assert learned(broken) == learned(straight)
    assert_bit_equal(straight, broken)


def test_killed_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    straight = run(tmp_path / "straight", checkpoint__every=1)
    for at in (1, 2, 5):
        broken = killed_run(tmp_path / "broken", monkeypatch, at=at, checkpoint__every=1)
    run(broken.path, checkpoint__every=1)
    assert learned(broken) == learned(straight)
    assert_bit_equal(straight, broken)


def test_a_kill_before_the_first_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    straight = run(tmp_path / "straight")
    broken = killed_run(tmp_path / "broken", monkeypatch, at=1)
    run(broken.path)
    assert_bit_equal(straight, broken)
    assert learned(broken) == learned(straight)


def test_watching_does_not_change_what_is_learned(tmp_path: Path) -> None:
    quiet = run(tmp_path / "quiet", log__every=6, evaluate__every=6, checkpoint__every=6)
    stall_exempt = run(tmp_path / "busy", log__every=1, evaluate__every=1, checkpoint__every=1)
    networks = [{k: v for k, v in everything(f).items() if k.startswith("/networks/")} for f in (quiet, stall_exempt)]
    for key, value in networks[0].items():
        other = networks[1][key]
        assert torch.equal(value, other) if isinstance(value, Tensor) else value == other, key  # type: ignore[arg-type]


def test_a_run_goes_on_when_more_steps_are_wanted(tmp_path: Path) -> None:
    rates = {f"optimizer__{name}__schedule": "constant" for name in ("generator", "discriminator")}
    straight = run(tmp_path / "straight", **rates, train__steps=8)
    longer = run(tmp_path / "longer", **rates, train__steps=6)
    run(longer.path, **rates, train__steps=8)
    assert json.loads((longer.path / "finished").read_text()) == {"step": 8}
    assert longer.settings()["train"]["steps"] == 8
    assert_bit_equal(straight, longer)
    with pytest.raises(UserError, match=r"train\.steps was 8, now 7"):
        run(longer.path, **rates, train__steps=7)


def test_a_finished_run_returns_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(tmp_path / "run")
    files = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")}
    monkeypatch.setattr("colordist.training.build.build_trainer", lambda *_: pytest.fail("nothing is to be built"))
    capsys.readouterr()
    run(folder.path)
    assert capsys.readouterr().out == f"{folder.path} is finished: nothing to do\n"
    assert {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")} == files


def test_another_run_leaves_the_folder_alone(tmp_path: Path) -> None:
    folder = run(tmp_path / "run")
    files = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")}
    with pytest.raises(UserError, match="seed was 0, now 1"):
        run(folder.path, seed=1)
    with pytest.raises(UserError, match="--resume never"):
        run(folder.path, resume="never")
    assert {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")} == files


def test_all_is_closed_when_the_run_folder_is_out_of_reach(tmp_path: Path) -> None:
    folder, before = RunFolder(tmp_path / "run"), set(threading.enumerate())
    trainer = build_trainer(tiny(), folder)
    folder.path.rename(tmp_path / "elsewhere")
    folder.path.symlink_to(folder.path)  # to itself
    trainer.close()
    assert not any(thread.name == "lock" for thread in set(threading.enumerate()) - before)


# --- precision, divergence


@pytest.mark.parametrize(
    ("precision", "resolved", "dtype"),
    [("fp64", "fp64", torch.float64), ("bf16", "bf16", torch.float32), ("auto", "fp32", torch.float32)],
)
def test_precisions(precision: str, resolved: str, dtype: torch.dtype, tmp_path: Path) -> None:
    folder = run(tmp_path / "run", train__precision=precision, train__steps=2)
    assert folder.settings()["train"]["precision"] == resolved
    weights = [v for k, v in everything(folder).items() if "/module/" in k and isinstance(v, Tensor)]
    assert {value.dtype for value in weights} == {dtype}
    values = itertools.chain.from_iterable(record.values() for record in folder.records())
    assert all(abs(value) < float("inf") for value in values)
    assert run(folder.path, train__precision=precision, train__steps=2).state == "finished"


@pytest.mark.parametrize("task", ["autoencoder", "cgan"])
@pytest.mark.parametrize(("policy", "updates"), [("stop", 1), ("skip", 3)])
def test_divergence_is_told(policy: str, updates: int, task: Kind, tmp_path: Path) -> None:
    rate = {"optimizer__generator__lr": 1e12, "optimizer__generator__warmup_steps": 0}
    policies = {"train__nonfinite": policy, "train__skip_limit": 2}
    when = r"at step \d" if updates == 1 else rf"in {updates} updates in a row, up to step \d"
    told = rf"^the gradient of the \w+ was not finite {when}: try a lower"
    with pytest.raises(Diverged, match=told) as refused:
        run(tmp_path / "run", task__name=task, log__every=1, **rate, **policies)
    assert "\n" not in str(refused.value)
    assert RunFolder(tmp_path / "run").state == "unfinished"


def test_an_impossible_launch_makes_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UserError, match="3 processes can't share"):
        run(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def rewrite_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Put another state into a checkpoint, as if it had been written there."""
    torch.save(state, path / "state.pt")
    data = (path / "state.pt").read_bytes()
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["state.pt"] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    del manifest["sha256"]
    manifest["sha256"] = checkpoint._digest(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


def test_a_checkpoint_of_other_networks_is_refused_in_one_line(tmp_path: Path) -> None:
    done = run(tmp_path / "run", train__steps=3)
    (newest,) = done.checkpoints.iterdir()
    state = torch.load(newest / "state.pt", weights_only=True)
    del state["networks"]["generator"]["module"]["last.weight"]
    rewrite_checkpoint(newest, state)
    with pytest.raises(UserError, match=r"doesn't fit these networks .*last\.weight") as refused:
        run(tmp_path / "run", train__steps=6)
    assert "\n" not in str(refused.value)


def refused(path: Path, **settings: Any) -> str:  # noqa: ANN401  any setting
    with pytest.raises(UserError) as refusal:
        run(path, **settings)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def test_a_run_from_which_something_was_taken_is_not_begun_again_over_the_rest(tmp_path: Path) -> None:
    done = run(tmp_path / "run", train__steps=3)
    before = done.metrics_file.read_bytes()
    shutil.move(done.checkpoints, tmp_path / "away")
    assert "no checkpoint to continue it from" in refused(done.path, train__steps=6)
    shutil.move(tmp_path / "away", done.checkpoints)
    done.config_file.unlink()
    (done.path / "finished").unlink()
    assert "holds checkpoints, snapshots, samples, metrics.jsonl, metrics.json, images but no config.yaml" in refused(
        done.path, train__steps=6
    )
    assert done.metrics_file.read_bytes() == before


def test_a_run_that_was_killed_is_not_begun_again_once_it_had_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"log__every": 1, "train__steps": 8}
    early = killed_run(tmp_path / "early", monkeypatch, at=6, checkpoint__every=5, **settings)
    shutil.rmtree(early.checkpoints)  # as if the write of the first one had been cut off
    assert run(early.path, **settings).is_finished(8)
    late = killed_run(tmp_path / "late", monkeypatch, at=7, checkpoint__every=3, **settings)
    before = late.metrics_file.read_bytes()
    shutil.rmtree(late.checkpoints)
    assert "no checkpoint to continue it from" in refused(late.path, **settings)
    assert late.metrics_file.read_bytes() == before


def test_a_damaged_line_is_named_and_nothing_is_dropped(tmp_path: Path) -> None:
    done = run(tmp_path / "run", train__steps=3)
    lines = done.metrics_file.read_text().splitlines()
    damaged = "\n".join([lines[0], "{", *lines[2:]])
    done.metrics_file.write_text(damaged)
    assert f"line 2 of {done.metrics_file} is damaged" in refused(done.path, train__steps=6)
    assert done.metrics_file.read_text() == damaged


def test_other_images_than_the_run_began_with_are_refused(tmp_path: Path) -> None:
    for part in ("train", "test"):
        (tmp_path / "photos" / part).mkdir(parents=True)
        for number in range(4):
            color = (60 * number, 90, 200 - 40 * number)
            Image.new("RGB", (32, 32), color).save(tmp_path / "photos" / part / f"{number}.png")
    settings = {"data__source": "folder", "data__root": str(tmp_path / "photos")}
    run(tmp_path / "run", train__steps=3, **settings)
    Image.new("RGB", (32, 32), (1, 2, 3)).save(tmp_path / "photos" / "test" / "2.png")
    assert "images have changed" in refused(tmp_path / "run", train__steps=6, **settings)


def test_a_test_split_without_colour_is_refused_before_training(tmp_path: Path) -> None:
    for part, color in (("train", (9, 99, 199)), ("test", (80, 80, 80))):
        (tmp_path / "photos" / part).mkdir(parents=True)
        Image.new("RGB", (32, 32), color).save(tmp_path / "photos" / part / "0.png")
    settings = {"data__source": "folder", "data__root": str(tmp_path / "photos")}
    assert "no test image" in refused(tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried to"),
    ],
)
def test_memory_that_runs_out_is_no_checkpoint_that_does_not_fit(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_state_dict(_: object) -> None:
        raise error

    monkeypatch.setattr("colordist.training.trainer.load_newest", lambda *_: {"networks": {}})
    trainer: Any = SimpleNamespace(config=None, folder=None, task=SimpleNamespace(state={}))
    trainer.engine = SimpleNamespace(load_state_dict=load_state_dict)
    with pytest.raises(RunError, match=r"^out of memory while loading the checkpoint") as refusal:
        Trainer.restore(trainer)
    assert "\n" not in str(refusal.value)
    assert "another --run.dir" not in str(refusal.value)
    trainer.engine.load_state_dict = lambda _: None
    with pytest.raises(UserError, match="doesn't fit these networks"):
        Trainer.restore(trainer)
