"""Snapshots that version 0.1 wrote still load, and answer the same: see tests/data/snapshots_0.1/README.md."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

import colordist
from colordist.errors import UserError
from colordist.run import snapshot

OLD = Path(__file__).parents[2] / "data/snapshots_0.1"
ANSWERS = load_file(OLD / "answers.safetensors")
GONE = "unet-batch"  # its normalisation no longer exists
NAMES = sorted(path.parent.name for path in OLD.glob("*/model.json") if path.parent.name != GONE)


def output(folder: Path, grey: Tensor) -> Tensor:
    """What a snapshot's network gives for one grey image, [1, 1, H, W] in [-1, 1]: [answers, channels, H, W]."""
    trained = snapshot.read(folder)
    noise = torch.eye(trained.task.model.noise_size) if trained.task.model.noise_size else None
    dtype = next(trained.networks.parameters()).dtype
    with torch.no_grad():
        return trained.sample(grey.to(dtype), None if noise is None else noise.to(dtype)).float()


def test_every_answer_has_its_snapshot() -> None:
    assert {key.split("/")[0] for key in ANSWERS} == {*NAMES, GONE}


def test_a_network_that_no_longer_exists_is_one_line() -> None:
    with pytest.raises(UserError, match=r"model\.norm batch, which no longer exists: use the version"):
        colordist.load(OLD / GONE)


@pytest.mark.parametrize("name", NAMES)
def test_the_network_gives_the_same_output(name: str) -> None:
    with Image.open(OLD / "grey.png") as grey:
        given = torch.from_numpy(np.array(grey)).float()[None, None] / 127.5 - 1
    torch.testing.assert_close(output(OLD / name, given), ANSWERS[f"{name}/output"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_picture_is_the_same(name: str) -> None:
    """Within one of 256 levels: another CPU may round another way."""
    colorizer, expected = colordist.load(OLD / name), ANSWERS[f"{name}/picture"]
    assert colorizer.variants == len(expected)
    with Image.open(OLD / "grey.png") as grey:
        found = [torch.from_numpy(np.array(colorizer(grey, variant))) for variant in range(colorizer.variants)]
    assert (torch.stack(found).int() - expected.int()).abs().max() <= 1
