"""What the report's page is made of: curves, pictures, histograms, settings, commands."""

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from report_runs import trained

from colordist.cli.parser import parse
from colordist.config import as_dict
from colordist.metrics.ciede2000 import ciede2000
from colordist.metrics.hues import CENTERS, histograms
from colordist.metrics.metric import rgb_to_lab
from colordist.reporting.curves import MOST_POINTS, Curve, curve, losses, thin
from colordist.reporting.gallery import gallery
from colordist.reporting.runs import Run, load_run
from colordist.reporting.settings import command, differences
from colordist.run.folder import RunFolder
from colordist.run.identity import learning_keys


def told(*folders: RunFolder) -> list[Run]:
    return [load_run(each) for each in folders]


# --- curves


def test_a_short_curve_is_whole(tmp_path: Path) -> None:
    (run,) = told(trained(tmp_path / "a", losses=5))
    found = curve(run, "loss/generator/l1")
    assert found is not None
    assert found.steps.tolist() == [10, 20, 30, 40, 50]
    assert found.images.tolist() == [160, 320, 480, 640, 800]
    assert found.values.tolist() == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4, 1 / 5])
    assert curve(run, "loss/generator/nothing") is None


def test_a_long_curve_keeps_its_ends_and_spikes() -> None:
    values = np.sin(np.arange(10_000) / 50).astype(np.float32)
    values[1234], values[8765] = 50, -50
    steps = np.arange(10_000, dtype=np.float64)
    thinned = thin(Curve(steps, 16 * steps, values))
    assert len(thinned.steps) <= MOST_POINTS
    assert {0, 1234, 8765, 9999} <= set(thinned.steps.tolist())
    assert np.array_equal(thinned.images, 16 * thinned.steps)
    assert np.array_equal(thinned.values, values[thinned.steps.astype(int)])
    assert np.all(np.diff(thinned.steps) > 0)


def test_losses_are_told_from_rates_and_scores(tmp_path: Path) -> None:
    assert losses(told(trained(tmp_path / "a", scores={"psnr": 20.0}))) == {
        "generator": ["l1"],
        "discriminator": ["real"],
    }


# --- pictures


def test_pictures_are_cut_from_the_newest_grid(tmp_path: Path) -> None:
    runs = told(trained(tmp_path / "a"), trained(tmp_path / "b", answer=2))
    found = gallery(runs)
    assert found is not None
    assert found.target.shape == (4, 16, 16, 3)
    grid = np.asarray(Image.open(runs[1].folder.samples / "step-000010.png"))
    assert np.array_equal(found.predictions[runs[1]][2], grid[16:32, 32:48])
    assert np.array_equal(found.grey[0], grid[:16, :16])


def test_distances_between_runs_and_to_the_target(tmp_path: Path) -> None:
    runs = told(*(trained(tmp_path / name, answer=seed) for name, seed in (("a", 1), ("b", 2), ("c", 1))))
    found = gallery(runs)
    assert found is not None
    one, two = (lab(found.predictions[run]) for run in runs[:2])
    between = ciede2000(one, two).mean(dim=(1, 2)).numpy()
    assert found.between_runs == pytest.approx(between * 2 / 3, rel=1e-4)  # of three pairs, one is the same twice
    assert found.to_target[runs[0]] == pytest.approx(
        ciede2000(one, lab(found.target)).mean(dim=(1, 2)).numpy(), rel=1e-4
    )


def test_what_cannot_be_shown_beside_the_others_is_said(tmp_path: Path) -> None:
    runs = told(*(trained(tmp_path / name, target=seed) for name, seed in (("a", 0), ("b", 5), ("c", 0), ("d", 0))))
    (runs[2].folder.samples / "step-000010.png").write_bytes(b"no picture")
    (runs[3].folder.samples / "step-000010.png").unlink()
    found = gallery(runs)
    assert found is not None
    assert [*found.predictions] == [runs[0]]
    assert [found.left_out[run].split(" (")[0] for run in runs[1:]] == [
        "shows other test images",
        "has a sample grid that can't be read",
        "has no samples yet",
    ]
    assert gallery(runs[3:]) is None


def lab(tiles: NDArray[np.uint8]) -> Any:  # noqa: ANN401
    import torch

    return rgb_to_lab(torch.from_numpy(tiles.copy()).permute(0, 3, 1, 2))


# --- histograms


def test_histograms_are_shares() -> None:
    tiles = np.zeros((2, 4, 4, 3), np.uint8)
    tiles[0] = (255, 0, 0)  # a 80.1, b 67.2
    found = histograms(tiles)
    assert {center: share for center, share in zip(CENTERS, found.a, strict=True) if share} == {0: 50, 80: 50}
    assert {center: share for center, share in zip(CENTERS, found.b, strict=True) if share} == {0: 50, 65: 50}


# --- settings and commands


def test_only_what_differs(tmp_path: Path) -> None:
    other = {"run.dir": "elsewhere", "log.every": 7, "optimizer.generator.lr": 0.5}
    found = differences(told(trained(tmp_path / "a"), trained(tmp_path / "b", settings=other)))
    assert [(each.key, each.values, each.is_identity) for each in found] == [
        ("optimizer.generator.lr", ["0.001", "0.5"], True),
        ("log.every", ["50", "7"], False),
    ]


def test_a_key_that_one_run_does_not_know(tmp_path: Path) -> None:
    old, new = trained(tmp_path / "a"), trained(tmp_path / "b")
    old.config_file.write_text(old.config_file.read_text().replace("  flip: true\n", ""))
    (found,) = differences(told(old, new))
    assert (found.key, found.values) == ("data.flip", ["-", "true"])


@pytest.mark.parametrize(
    "settings",
    [
        {"seed": 3},
        {"task.name": "autoencoder", "model.name": "autoencoder", "model.bottleneck": 4, "train.precision": "fp32"},
        {"data.source": "folder", "data.root": "my photos; rm -rf $HOME 'x'", "data.classes": ["a b", "c"]},
        {"optimizer.generator.clip_norm": 1e-05, "data.flip": False, "train.micro_batch_size": 4},
    ],
)
def test_the_command_repeats_the_run(tmp_path: Path, settings: dict[str, Any]) -> None:
    (run,) = told(trained(tmp_path / "a run", settings=settings))
    launch, dash_m, *arguments = shlex.split(command(run))[1:]
    assert (launch, dash_m, arguments[0]) == ("launch", "-m", "colordist.train")
    config = parse(arguments[1:]).config
    assert learning_keys(as_dict(config)) == learning_keys(run.settings)
    assert config.run.dir == f"{tmp_path}/a run-again"
