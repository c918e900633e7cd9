"""Reports: runs side by side, and only if they were scored on the same images."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import config_with
from numpy.typing import NDArray
from PIL import Image

from colordist.config import UserError
from colordist.metrics.baselines import REFERENCES
from colordist.reporting.names import labels
from colordist.reporting.picture import comparison
from colordist.reporting.scores import score_table
from colordist.run.folder import RunFolder


def pixels(seed: int, tile: int = 16, images: int = 2) -> NDArray[np.uint8]:
    """A row of a grid."""
    return np.random.default_rng(seed).integers(0, 256, (tile, images * tile, 3), dtype=np.uint8)


def run(
    path: Path, *, task: str = "cgan", mae: float = 5.0, baseline: float = 9.0, target: int = 0, tile: int = 16
) -> RunFolder:
    """A run folder that looks trained."""
    folder = RunFolder(path)
    folder.write_settings(config_with({"task.name": task}))
    references = {f"reference/{each.name}/mae": baseline - place for place, each in enumerate(REFERENCES)}
    lines = [
        {"step": 0, **references},
        {"step": 0, "scores/mae": 77.0},
        {"step": 5, "generator/l1": 0.1},
        {"step": 10, "scores/mae": mae},
        {"step": 15, "generator/l1": 0.1},
    ]
    folder.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    folder.samples.mkdir()
    for step, answer in ((0, 8), (10, 9)):
        grid = np.concatenate([pixels(7, tile), pixels(answer, tile), pixels(target, tile)])
        Image.fromarray(grid).save(folder.samples / f"step-{step:06d}.png")
    return folder


def test_labels(tmp_path: Path) -> None:
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    ae, first, second = run(one, task__name="autoencoder"), run(two), run(three)
    assert labels([ae, first]) == ["autoencoder", "cgan"]
    assert labels([first, ae, second]) == ["cgan two", "autoencoder", "cgan three"]


def test_scores_stand_between_floors_and_ceiling(tmp_path: Path) -> None:
    table = score_table([run(tmp_path / "a", mae=5.5), run(tmp_path / "b", task__name="autoencoder", mae=4.25)])
    head, mae = table.splitlines()  # metrics that nobody has a score for are left out
    order = ["baseline: grey", "baseline: constant a,b", "cgan", "autoencoder", "oracle: true a,b", "truth"]
    assert [head.index(label) for label in order] == sorted(head.index(label) for label in order)
    assert mae.split()[-6:] == ["9.00", "8.00", "5.50", "4.25", "7.00", "6.00"]  # the newest scores, not the first


def test_scores_of_different_images_are_not_compared(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="different images") as refused:
        score_table([run(tmp_path / "a"), run(tmp_path / "b", baseline=9.5)])
    assert str(tmp_path / "a") in str(refused.value)
    assert str(tmp_path / "b") in str(refused.value)


def test_no_scores_yet(tmp_path: Path) -> None:
    folder = run(tmp_path / "a")
    folder.metrics_file.write_text("")
    with pytest.raises(UserError, match="holds no scores: train it first"):
        score_table([folder])
    with pytest.raises(UserError, match=r"is no run folder|holds no scores"):
        score_table([RunFolder(tmp_path / "nowhere")])


def test_picture_shows_each_runs_newest_answer(tmp_path: Path) -> None:
    picture = np.asarray(comparison([run(tmp_path / "a"), run(tmp_path / "b", task__name="autoencoder")]))
    # Four rows; tiles of 16 pixels are enlarged six times to 96; two pixels between rows.
    assert picture.shape[0] == 4 * 96 + 3 * 2
    margin = picture.shape[1] - 2 * 96
    assert margin > 0
    shown = [picture[row * 98 : row * 98 + 96 : 6, margin::6] for row in range(4)]
    for found, seed in zip(shown, (7, 9, 9, 0), strict=True):
        assert np.array_equal(found, pixels(seed))


def test_large_images_are_not_enlarged(tmp_path: Path) -> None:
    picture = np.asarray(comparison([run(tmp_path / "a", tile=100)]))
    assert picture.shape[0] == 3 * 100 + 2 * 2


@pytest.mark.parametrize("other", [{"truth": 1}, {"tile": 32}])
def test_pictures_of_different_images_are_not_compared(tmp_path: Path, other: dict[str, int]) -> None:
    runs = [run(tmp_path / "a"), run(tmp_path / "b", task__name="autoencoder", **other)]
    with pytest.raises(UserError, match="autoencoder shows other test images than cgan"):
        comparison(runs)


def test_no_samples_yet(tmp_path: Path) -> None:
    folder = run(tmp_path / "a")
    for file in folder.samples.iterdir():
        file.unlink()
    with pytest.raises(UserError, match="holds no samples: train it first"):
        comparison([folder])
