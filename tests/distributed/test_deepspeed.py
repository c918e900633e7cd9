"""DeepSpeed at ZeRO stages 1, 2 and 3 trains the same as one process without it, and each continues the other's runs.

Five launches for all tests, with several trainings in each. Two processes, float32, 7 images per process and step in
micro-batches of 4 and 3; 19 test images, which two processes can't share equally.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import ROOT, clean_environment, fitting, timm_weights
from PIL import Image
from runs import flat
from small_images import images

import colordist
from colordist.run import snapshot
from colordist.run.folder import step_name
from launch import LAUNCHER, TINY_GAN, arguments, records

pytestmark = [pytest.mark.dist, pytest.mark.slow]

STAGES = (1, 2, 3)
SETTINGS: dict[str, Any] = TINY_GAN | {
    **{"train.global_batch_size": 14, "train.micro_batch_size": 4, "train.steps": 20, "train.precision": "fp32"},
    **{"train.ema_images": 100, "task.warmup_steps": 3, "log.every": 1, "evaluate.every": 20, "checkpoint.every": 10},
    **{"optimizer.generator.clip_norm": 0.2, "optimizer.generator.warmup_steps": 5},
    "optimizer.discriminator.clip_norm": 0.05,
}
HALF = {"train.precision": "bf16", "train.steps": 6}
FOUR_NETWORKS = {"task.name": "cyclegan", "task.image_buffer_slots": 2, "train.steps": 6}
FLOW = {"task.name": "flow", "task.solver_steps": 2, "train.steps": 6}
PHOTOS: dict[str, Any] = {
    **{"data.source": "folder", "data.image_size": 64, "data.resize": 70, "data.crop": "random"},
    **{"model.name": "timm_unet", "model.encoder": "test_efficientnet"},
    **{"task.feature_weight": 2.0, "task.feature_model": "test_efficientnet", "train.steps": 6},
}
CHECKPOINTED = {"train.activation_checkpointing": True}
AT_ONCE = {"train.micro_batch_size": 14}  # no accumulation, so the generator runs once per step for both phases
NO_WARMUP = {"task.warmup_steps": 0}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of all runs: ``plain`` on one process, ``zero1`` to ``zero3`` on two."""
    folder = tmp_path_factory.mktemp("runs")

    def job(action: str, name: str, settings: dict[str, Any] | None = None) -> list[str]:
        return [action, *arguments(fitting(SETTINGS, settings or {}), run__dir=folder / name)]

    def fork(name: str, copy: str) -> list[str]:
        return ["fork", str(folder / name), str(folder / copy)]

    def common(name: str) -> list[list[str]]:
        return [job("train", f"{name}/whole"), job("plant", f"{name}/plant", NO_WARMUP)]

    file = str(timm_weights(folder / "weights.safetensors", "test_efficientnet"))
    paths = {"data.root": str(images(folder / "images")), "model.weights": file, "task.feature_weights": file}
    some = (("half", HALF), ("cyclegan", FOUR_NETWORKS), ("flow", FLOW), ("photos", PHOTOS | paths))
    work(folder, [*common("plain"), *(job("train", f"plain/{name}", settings) for name, settings in some)])
    for stage in STAGES:
        zero = f"zero{stage}"
        jobs = [
            *common(zero),
            *(fork(f"{zero}/whole", f"{zero}/again"), job("train", f"{zero}/again", CHECKPOINTED)),
            *(fork("plain/whole", f"{zero}/taken"), job("train", f"{zero}/taken", AT_ONCE)),
            *(
                job("train", f"{zero}/{name}", settings)
                for name, settings in some
                if stage == 2 or (stage == 3 and name == "flow")
            ),
            job("misuse", f"{zero}/misuse", NO_WARMUP),
        ]
        work(folder, jobs, stage)
    back = [(fork(f"zero{stage}/whole", f"plain/of{stage}"), job("train", f"plain/of{stage}")) for stage in STAGES]
    work(folder, [each for pair in back for each in pair])
    return folder


def work(folder: Path, jobs: list[list[str]], stage: int | None = None) -> None:
    """Run jobs of the worker: in one process, or in two with DeepSpeed."""
    (folder / "jobs.json").write_text(json.dumps(jobs))
    command = [sys.executable, str(Path(__file__).with_name("zero_worker.py")), str(folder / "jobs.json")]
    environment = clean_environment()
    if stage is not None:
        config = str(ROOT / f"launch/deepspeed_zero{stage}.yaml")
        command[:1] = [*LAUNCHER, "--config_file", config, "--num_processes", "2"]
        environment["ACCELERATE_USE_CPU"] = str(stage == 1)  # with it, Accelerate by itself ignores DeepSpeed
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "JIT" not in done.stdout + done.stderr


def checkpoint(run: Path, step: int = 20) -> dict[str, Any]:
    """The networks' state in a run's checkpoint, by path."""
    return flat(torch.load(run / "checkpoints" / step_name(step) / "state.pt", weights_only=True)["networks"])


def assert_same(run: Path, other: Path) -> None:
    """Assert that checkpoints are bit-equal, and records equal."""
    first, second = checkpoint(run), checkpoint(other)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]) if isinstance(value, torch.Tensor) else value == second[name], name
    assert records(run) == records(other)


def assert_close(run: Path, other: Path, step: int = 20) -> None:
    """Assert that runs agree within the rounding of float32 sums, with equal names, shapes and dtypes."""
    first, second = checkpoint(run, step), checkpoint(other, step)
    assert first.keys() == second.keys()
    for name, value in first.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(value, second[name], rtol=5e-5, atol=5e-6, msg=name)
        else:
            assert value == second[name], name
    for one, two in zip(records(run), records(other), strict=True):
        assert two == pytest.approx(one, rel=5e-5, abs=1e-6)


def reports(run: Path, name: str) -> list[Any]:
    """Reports of the worker, by rank."""
    return [json.loads(file.read_text()) for file in sorted(run.glob(f"{name}-*.json"))]


@pytest.mark.parametrize("stage", STAGES)
def test_losses_scores_and_state_are_those_of_one_process(stage: int, runs: Path) -> None:
    assert_close(runs / f"zero{stage}/whole", runs / "plain/whole", step=10)
    assert_close(runs / f"zero{stage}/whole", runs / "plain/whole")


@pytest.mark.parametrize("stage", STAGES)
def test_each_process_keeps_its_part(stage: int, runs: Path) -> None:
    (alone,) = reports(runs / "plain/whole", "kept")
    both = reports(runs / f"zero{stage}/whole", "kept")
    assert len(both) == 2
    for name, one in alone.items():
        assert (one["engine"], one["moments"]) == ("DDPStrategy", one["weights"])
        for kept in [each[name] for each in both]:
            assert kept["engine"] == "DeepSpeedStrategy"
            assert kept["moments"] == pytest.approx(one["moments"] / 2, abs=50)  # padded to equal sizes
            assert kept["weights"] == (0 if stage == 3 else one["weights"])


@pytest.mark.parametrize("stage", STAGES)
def test_continued_it_is_bit_equal_to_unbroken(stage: int, runs: Path) -> None:
    """The continued run uses activation checkpointing."""
    assert reports(runs / f"zero{stage}/again", "loaded") == [True, True]
    assert_same(runs / f"zero{stage}/again", runs / f"zero{stage}/whole")


@pytest.mark.parametrize("stage", STAGES)
def test_one_process_without_deepspeed_continues_it(stage: int, runs: Path) -> None:
    assert reports(runs / f"plain/of{stage}", "loaded") == [True]
    assert_close(runs / f"plain/of{stage}", runs / f"zero{stage}/whole")


@pytest.mark.parametrize("stage", STAGES)
def test_it_continues_what_one_process_began_without(stage: int, runs: Path) -> None:
    """With one micro-batch per step: the discriminator's phase is between the generator's forward and backward."""
    assert reports(runs / f"zero{stage}/taken", "loaded") == [True, True]
    assert_close(runs / f"zero{stage}/taken", runs / "plain/whole")


@pytest.mark.parametrize("stage", STAGES)
def test_what_is_not_finite_on_one_process_is_skipped_by_all(stage: int, runs: Path) -> None:
    alone, *both = reports(runs / "plain/plant", "planted") + reports(runs / f"zero{stage}/plant", "planted")
    skipped = [(step, name) for step, name, count, changed in alone if count == 1 and not changed]
    assert skipped == [(2, "discriminator"), (4, "generator")]
    assert all(changed == (count == 0) for _, _, count, changed in alone)
    assert both == [alone, alone]
    expected, first, second = (
        torch.load(runs / name, weights_only=True)
        for name in ("plain/plant/weights-0.pt", f"zero{stage}/plant/weights-0.pt", f"zero{stage}/plant/weights-1.pt")
    )
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    torch.testing.assert_close(first, expected, rtol=5e-5, atol=5e-6)  # later steps are correct


@pytest.mark.parametrize("stage", STAGES)
def test_state_comes_apart_and_together_and_no_network_learns_out_of_its_phase(stage: int, runs: Path) -> None:
    both = reports(runs / f"zero{stage}/misuse", "misuse")
    assert len(both) == 2
    for generator, discriminator, trainable, late in both:
        assert (generator, discriminator) == ("the same", "the same")
        assert "freeze them first" in trainable
        assert "gradients from outside its phase" in late


def test_half_precision_computes_in_half_and_keeps_weights_whole(runs: Path) -> None:
    for kept in reports(runs / "zero2/half", "kept"):
        assert all((each["computes"], each["types"]) == ("torch.bfloat16", ["torch.float32"]) for each in kept.values())
    for one, two in zip(records(runs / "plain/half"), records(runs / "zero2/half"), strict=True):
        assert two == pytest.approx(one, rel=0.05, abs=0.01)


@pytest.mark.parametrize("run", ["zero2/cyclegan", "zero2/flow", "zero3/flow"])
def test_networks_that_run_several_times_or_have_a_time_input(run: str, runs: Path) -> None:
    assert_close(runs / run, runs / "plain" / Path(run).name, step=6)


def test_a_pretrained_encoder_and_a_feature_loss(runs: Path) -> None:
    assert_close(runs / "zero2/photos", runs / "plain/photos", step=6)
    losses = [each for each in records(runs / "zero2/photos") if "loss/generator/l1" in each]
    assert len(losses) == 6
    assert all(each["loss/generator/feature"] > 0 for each in losses)


def test_a_snapshot_is_like_any_other(runs: Path) -> None:
    run = runs / "zero3/whole"
    trained = snapshot.read(snapshot.latest(run))
    assert trained.step == 20
    weights = trained.networks["generator"].state_dict()
    average = {name: value for name, value in checkpoint(run).items() if name.startswith("/generator/ema/")}
    assert {f"/generator/ema/{name}" for name in weights} == average.keys()
    for name, value in weights.items():
        assert torch.equal(value, average[f"/generator/ema/{name}"]), name
    photo = Image.linear_gradient("L").resize((40, 24))
    assert colordist.load(run)(photo).size == (40, 24)
