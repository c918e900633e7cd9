"""evaluate is bit-equal on any number of processes, also where the images don't divide evenly."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from launch import TINY_GAN, arguments, start, train

timm = pytest.importorskip("timm")
pytestmark = [pytest.mark.dist, pytest.mark.slow]


def test_scores_do_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    """150 images are three batches of at most 64: on three processes one each, on four one process has none."""
    run = tmp_path / "run"
    done = train(*arguments(TINY_GAN, run__dir=run, train__precision="fp32"))
    assert done.returncode == 0, done.stderr
    torch.manual_seed(0)
    save_file(timm.create_model("test_efficientnet").state_dict(), tmp_path / "weights.safetensors")
    metrics = f"[{{name: features, model: test_efficientnet, weights: {tmp_path / 'weights.safetensors'}}}]"
    more = ("--data.test_images", "150", "--evaluate.metrics", metrics)
    found = []
    for processes in (1, 2, 3, 4):
        file = tmp_path / f"{processes}.json"
        done = start("colordist.evaluate", str(run), *more, "-o", str(file), processes=processes)
        assert done.returncode == 0, done.stderr
        found.append(json.loads(file.read_text()))
    assert found[0]["images"] == 150
    assert {"kernel_test_efficientnet", "kernel_test_efficientnet_low"} < set(found[0]["scores"])
    assert all(each == found[0] for each in found)
