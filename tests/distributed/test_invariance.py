"""The central invariant: training depends on config, seed and step, not on the number of processes.

Each config is trained on 1, 2, 3 and 4 processes, with and without accumulation, and compared with one process without
accumulation. In fp64 only the order of sums differs: the largest relative difference of any tensor after 20 steps was
6e-14.

In fp32 rounding may also move a value across a kink (L1 at 0, LeakyReLU at 0), where the slope changes. Until then
weights differ by about 5e-9 per step (relative to the norm of a network): 1e-7 after 20 steps, 5e-7 after 160. One kink
adds 1e-5 to 4e-4, which a GAN amplifies: of 12 trainings of 160 steps, two ended between 2e-3 and 6e-3.
"""

import functools
import json
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import fitting, timm_weights
from image_datasets import saved
from runs import flat, tensors
from small_images import images
from torch import Tensor

from launch import TINY_GAN, records, work

pytestmark = [pytest.mark.dist, pytest.mark.slow]

STEPS = 20
COMMON: dict[str, Any] = TINY_GAN | {
    "task.warmup_steps": 4,
    "data.train_images": 25,  # not a multiple of the batch size: some batches span two epochs
    "data.test_images": 7,
    **{"optimizer.generator.schedule": "cosine", "optimizer.generator.warmup_steps": 5},
    **{"optimizer.discriminator.clip_norm": 0.1, "optimizer.discriminator.warmup_steps": 3},
    **{"train.steps": STEPS, "train.ema_images": 100},
    **{"log.every": 5, "evaluate.every": STEPS, "checkpoint.every": STEPS},
}
FP32 = {"train.precision": "fp32"}
AUTOENCODER = {"task.name": "autoencoder"}
CYCLEGAN = {"task.name": "cyclegan", "task.image_buffer_slots": 2}
FLOW: dict[str, Any] = {"task.name": "flow", "task.solver_steps": 2}
EVERYTHING: dict[str, Any] = {
    "model.blocks": 1,
    "model.attention_level": 1,
    "task.adversarial": "relativistic",
    "task.r1_weight": 0.5,
    "task.r2_weight": 0.2,
    "task.augment": ["translation", "cutout"],
}
EXACT: dict[str, dict[str, Any]] = {
    "cgan-group-instance": {"model.norm": "group", "discriminator.norm": "instance"},
    "cgan-instance-none": {"model.norm": "instance"},
    "cgan-none-group": {"model.norm": "none", "discriminator.norm": "group", "discriminator.output": "image"},
    "cgan-everything": EVERYTHING,
    "cgan-recomputed": {"train.activation_checkpointing": True, "model.norm": "instance"},
    "cgan-noise": {"model.noise": 2, "task.candidates": 3},
    "autoencoder-group": AUTOENCODER | {"model.norm": "group", "model.name": "autoencoder"},
    "autoencoder-instance": AUTOENCODER | {"model.norm": "instance", "model.color_space": "rgb"},
    "autoencoder-none": AUTOENCODER | {"model.norm": "none", "task.pixel": "l2"},
    "cyclegan": CYCLEGAN,
    "cgan-features": {"task.feature_weight": 2.0, "task.feature_model": "test_efficientnet", "model.norm": "instance"},
    "datasets": {"data.source": "datasets", "data.resize": 20, "data.crop": "random"},
    "folder-crops": {"data.source": "folder", "data.resize": 20, "data.crop": "random"},
    "photos": {
        **{"data.source": "folder", "data.image_size": 64, "data.resize": 70, "data.crop": "random"},
        **{"model.name": "timm_unet", "model.encoder": "test_efficientnet"},
        **{"task.feature_weight": 1.0, "task.feature_model": "test_efficientnet"},
        "optimizer.generator.lr_scales": {"encoder": 0.1},
    },
    "flow": FLOW,
    "flow-photos": FLOW
    | {
        "task.hints": True,
        **{"data.source": "folder", "data.image_size": 64, "data.resize": 70, "data.crop": "random"},
        **{"model.name": "timm_unet", "model.encoder": "test_efficientnet", "task.solver": "heun"},
        "optimizer.generator.lr_scales": {"encoder": 0.1},
    },
    "cgan-hints": {"task.hints": True, "model.noise": 2, "task.candidates": 3, "model.color_space": "rgb"},
    "cyclegan-rgb": CYCLEGAN | {"model.color_space": "rgb", "model.norm": "instance"},
}
ROUNDED: dict[str, dict[str, Any]] = {
    "fp32-cgan-group": FP32,
    "fp32-cgan-instance": FP32 | {"model.norm": "instance", "discriminator.norm": "instance"},
    "fp32-autoencoder": FP32 | AUTOENCODER,
}
CASES = EXACT | ROUNDED
# Number of processes: micro-batch size that gives a few micro-batches.
MICRO = {1: 4, 2: 4, 3: 3, 4: 2}
ALONE, *TOGETHER = [(processes, most) for processes, micro in MICRO.items() for most in (None, micro)]

Division = tuple[int, int | None]
Runs = Callable[[str, Division], Path]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Function from case and division to the run's folder. One launch per number of processes."""
    root = tmp_path_factory.mktemp("invariance")
    file = str(timm_weights(root / "weights.safetensors", "test_efficientnet"))
    weights = {"task.feature_weights": file, "model.weights": file}
    folder_of_images = images(root / "images", COMMON["data.train_images"], COMMON["data.test_images"])
    roots = {"folder": str(folder_of_images), "datasets": str(saved(folder_of_images, root / "dataset"))}

    @functools.cache
    def launched(processes: int) -> None:
        work(
            [
                {"run": str(folder(case, (processes, micro))), "settings": settings}
                for case, own in CASES.items()
                for micro in (None, MICRO[processes])
                for paths in [weights | {"data.root": roots.get(own.get("data.source", ""), "")}]
                for settings in [fitting(COMMON | {"train.micro_batch_size": micro} | paths, own)]
            ],
            root,
            processes,
        )

    def folder(case: str, division: Division) -> Path:
        return root / f"{case}-{division[0]}-{division[1]}"

    def run(case: str, division: Division) -> Path:
        launched(division[0])
        return folder(case, division)

    return run


def learned(run: Path) -> dict[str, Tensor]:
    """Weights, optimizer states and EMA weights, in double precision, by path."""
    state = tensors(flat(torch.load(run / "state.pt", weights_only=True)))
    return {path: value.double() for path, value in state.items()}


def seen(run: Path, processes: int) -> list[dict[str, Any]]:
    """Records of the worker, by rank."""
    return [json.loads((run / f"seen-{rank}.json").read_text()) for rank in range(processes)]


@pytest.mark.parametrize("division", TOGETHER, ids=str)
@pytest.mark.parametrize("case", EXACT)
def test_in_double_precision_everything_is_the_same(case: str, division: Division, runs: Runs) -> None:
    alone, all_at_once = runs(case, ALONE), runs(case, division)
    expected, found = learned(alone), learned(all_at_once)
    assert found.keys() == expected.keys()
    kinds = ["module", "ema", "optimizer/state/0/exp_avg", "optimizer/state/0/exp_avg_sq", "optimizer/state/0/step"]
    assert all(any(name.startswith(f"/generator/{kind}") for name in expected) for kind in kinds)
    for name, value in expected.items():
        assert (found[name] - value).norm() <= 1e-9 * value.norm(), name

    for one, two in zip(records(alone), records(all_at_once), strict=True):
        assert two == pytest.approx(one, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("division", TOGETHER, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_each_step_has_the_same_images_in_the_same_order(case: str, division: Division, runs: Runs) -> None:
    (expected,) = seen(runs(case, ALONE), 1)
    shares = [each["images"] for each in seen(runs(case, division), division[0])]
    steps = [[image for share in step for image in share] for step in zip(*shares, strict=True)]
    assert steps == expected["images"]
    assert len(steps) == STEPS
    assert len({image for step in steps for image in step}) > COMMON["data.train_images"]  # some were mirrored


@pytest.mark.parametrize("division", TOGETHER, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_all_processes_end_with_the_same_bits(case: str, division: Division, runs: Runs) -> None:
    first, *others = seen(runs(case, division), division[0])
    assert len(first["digests"]) > 20
    assert all(other["digests"] == first["digests"] for other in others)


@pytest.mark.parametrize("division", TOGETHER, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_the_log_has_the_same_keys(case: str, division: Division, runs: Runs) -> None:
    lines = [(runs(case, each) / "metrics.jsonl").read_text().splitlines() for each in (ALONE, division)]
    alone, all_at_once = ([json.loads(line).keys() for line in each] for each in lines)
    assert all_at_once == alone


def distances(runs: Runs, case: str, division: Division) -> list[float]:
    """Relative distances of each network's weights and EMA weights from those of one process."""
    expected, found = learned(runs(case, ALONE)), learned(runs(case, division))
    parts = {tuple(name.split("/")[1:3]) for name in expected}
    return [
        float(
            torch.cat([(found[name] - value).flatten() for name, value in expected.items() if name.startswith(prefix)])
            .norm()
            .div(torch.cat([value.flatten() for name, value in expected.items() if name.startswith(prefix)]).norm())
        )
        for prefix in (f"/{network}/{part}/" for network, part in parts if part in ("module", "ema"))
    ]


def test_in_single_precision_differences_stay_roundings(runs: Runs) -> None:
    """Usually about 1e-7. Where a kink was crossed, up to 4e-4 was observed, so the limit is 1e-2."""
    found = [each for case in ROUNDED for division in TOGETHER for each in distances(runs, case, division)]
    assert statistics.median(found) < 1e-6
    assert max(found) < 1e-2


@pytest.mark.parametrize("division", TOGETHER, ids=str)
@pytest.mark.parametrize("case", ROUNDED)
def test_in_single_precision_the_log_is_the_same_at_first(case: str, division: Division, runs: Runs) -> None:
    """Over the first 5 steps, where at most 5e-7 was observed."""
    alone, all_at_once = (
        next(line for line in records(runs(case, each)) if line["step"] == 5) for each in (ALONE, division)
    )
    assert all_at_once == pytest.approx(alone, rel=1e-4, abs=1e-6)


@pytest.mark.skipif(shutil.which("g++") is None, reason="PyTorch compiles for CPUs with g++")
def test_compiled_networks_learn_the_same_on_two_processes(tmp_path: Path) -> None:
    shallow = {"model.depth": 1, "discriminator.depth": 1}  # less to compile
    settings = COMMON | shallow | {"train.compile": "default", "train.steps": 6}
    for processes in (1, 2):
        work([{"run": str(tmp_path / str(processes)), "settings": settings}], tmp_path, processes)
    expected, found = (learned(tmp_path / str(processes)) for processes in (1, 2))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert (found[name] - value).norm() <= 1e-9 * value.norm(), name
