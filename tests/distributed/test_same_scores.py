"""evaluate is bit-equal on any number of processes, also where the images don't divide evenly."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import fitting
from PIL import Image
from safetensors.torch import save_file

from launch import TINY_GAN, arguments, start, train

timm = pytest.importorskip("timm")
pytestmark = [pytest.mark.dist, pytest.mark.slow]


def test_scores_do_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    """150 images are three batches of at most 64: on three processes one each, on four one process has none.

    A flow, which draws four predictions for each image, with hints.
    """
    run = tmp_path / "run"
    settings = fitting(TINY_GAN, {"task.name": "flow", "task.solver_steps": 2, "task.hints": True})
    done = train(*arguments(settings, run__dir=run, train__precision="fp32"))
    assert done.returncode == 0, done.stderr
    torch.manual_seed(0)
    save_file(timm.create_model("test_efficientnet").state_dict(), tmp_path / "weights.safetensors")
    metrics = f"[{{name: features, model: test_efficientnet, weights: {tmp_path / 'weights.safetensors'}}}]"
    more = ("--data.test_images", "150", "--hints", "3", "--evaluate.metrics", metrics)
    found = []
    for processes in (1, 2, 3, 4):
        file = tmp_path / f"{processes}.json"
        done = start("colordist.evaluate", str(run), *more, "-o", str(file), processes=processes)
        assert done.returncode == 0, done.stderr
        found.append(json.loads(file.read_text()))
    assert found[0]["images"] == 150
    assert {"ciede2000_best", "kernel_test_efficientnet", "kernel_test_efficientnet_low"} < set(found[0]["scores"])
    assert all(each == found[0] for each in found)


def test_scores_of_files_do_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    """Seven photographs of different sizes, the first large enough for torch to split its sums among threads."""
    torch.manual_seed(0)
    save_file(timm.create_model("test_efficientnet").state_dict(), tmp_path / "weights.safetensors")
    random = np.random.default_rng(0)
    for name, most in (("truth", 0), ("a", 20), ("b", 60)):
        (tmp_path / name).mkdir()
        for index in range(7):
            size = (250, 400) if index == 0 else (40 + 9 * index, 70 - 5 * index)
            image = np.random.default_rng(index).integers(0, 256, (*size, 3)) + random.integers(
                -most, most + 1, (*size, 3)
            )
            Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(tmp_path / name / f"{index}.png")
    metrics = f"[{{name: features, model: test_efficientnet, weights: {tmp_path / 'weights.safetensors'}}}]"
    found = []
    for processes in (1, 2, 3, 4):
        file = tmp_path / f"{processes}.json"
        more = ("--truth", str(tmp_path / "truth"), "--evaluate.metrics", metrics, "--json", str(file))
        done = start(
            "colordist.evaluate", "--answers", *(str(tmp_path / each) for each in "ab"), *more, processes=processes
        )
        assert done.returncode == 0, done.stderr
        found.append(file.read_text())
    assert "kernel_test_efficientnet" in json.loads(found[0])["scores"]["a"]
    assert all(each == found[0] for each in found)
