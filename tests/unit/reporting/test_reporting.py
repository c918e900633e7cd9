"""Reports: runs side by side, and only if they were scored on the same images."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import config_with
from numpy.typing import NDArray
from PIL import Image
from report_runs import trained

from colordist.errors import UserError
from colordist.metrics import SPECS
from colordist.metrics.baselines import REFERENCES
from colordist.reporting.charts import charted
from colordist.reporting.comparison import compare
from colordist.reporting.picture import picture
from colordist.run.folder import RunFolder
from colordist.run.records import score_table
from colordist.run.score_specs import save_specs


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
        {"step": 0, "score/mae": 77.0},
        {"step": 5, "loss/generator/l1": 0.1},
        {"step": 10, "score/mae": mae},
        {"step": 15, "loss/generator/l1": 0.1},
    ]
    folder.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    folder.samples.mkdir()
    for step, answer in ((0, 8), (10, 9)):
        grid = np.concatenate([pixels(7, tile), pixels(answer, tile), pixels(target, tile)])
        Image.fromarray(grid).save(folder.samples / f"step-{step:06d}.png")
    return folder


def test_scores_are_set_between_baselines_and_oracle(tmp_path: Path) -> None:
    table = compare([run(tmp_path / "a", mae=5.5), run(tmp_path / "b", task="autoencoder", mae=4.25)]).table
    head, mae = table.splitlines()  # metrics that nobody has a score for are left out
    order = ["grey (baseline)", "constant a,b (baseline)", "cgan", "autoencoder", "target's a,b (oracle)", "target"]
    assert [head.rindex(label) for label in order] == sorted(head.rindex(label) for label in order)
    assert mae.split()[-6:] == ["9.00", "8.00", "5.50", "4.25", "7.00", "6.00"]  # the newest scores, not the first
    alone = score_table(RunFolder(tmp_path / "a"))
    assert alone.splitlines()[1].split()[-5:] == ["9.00", "8.00", "5.50", "7.00", "6.00"]


def test_scores_of_different_images_are_not_compared(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="different images") as refused:
        compare([run(tmp_path / "a"), run(tmp_path / "b", baseline=9.5)])
    assert str(tmp_path / "a") in str(refused.value)
    assert str(tmp_path / "b") in str(refused.value)


def test_no_scores_yet(tmp_path: Path) -> None:
    folder = run(tmp_path / "a")
    folder.metrics_file.write_text("")
    assert compare([folder]).table == "no scores yet"
    with pytest.raises(UserError, match="is no run folder"):
        compare([RunFolder(tmp_path / "nowhere")])


def test_picture_shows_each_runs_newest_answer(tmp_path: Path) -> None:
    drawn = np.asarray(picture(compare([run(tmp_path / "a"), run(tmp_path / "b", task="autoencoder")])))
    # Four rows; tiles of 16 pixels are enlarged six times to 96; two pixels between rows.
    assert drawn.shape[0] == 4 * 96 + 3 * 2
    margin = drawn.shape[1] - 2 * 96
    assert margin > 0
    shown = [drawn[row * 98 : row * 98 + 96 : 6, margin::6] for row in range(4)]
    for found, seed in zip(shown, (7, 9, 9, 0), strict=True):
        assert np.array_equal(found, pixels(seed))


def test_large_images_are_not_enlarged(tmp_path: Path) -> None:
    drawn = np.asarray(picture(compare([run(tmp_path / "a", tile=100)])))
    assert drawn.shape[0] == 3 * 100 + 2 * 2


@pytest.mark.parametrize("other", [{"target": 1}, {"tile": 32}])
def test_pictures_of_different_images_are_not_compared(tmp_path: Path, other: dict[str, int]) -> None:
    runs = [run(tmp_path / "a"), run(tmp_path / "b", task="autoencoder", **other)]
    with pytest.raises(UserError, match="b shows other test images: it can't be shown beside cgan"):
        picture(compare(runs))


def test_no_samples_yet(tmp_path: Path) -> None:
    folder = run(tmp_path / "a")
    for file in folder.samples.iterdir():
        file.unlink()
    with pytest.raises(UserError, match="has no samples yet: train it first"):
        picture(compare([folder]))


def own_metric(folder: RunFolder, role: str = "comparison", better: str = "higher") -> RunFolder:
    """Let the run say of itself that it was scored by a metric that colordist doesn't know."""
    metric = {"name": "saturation", "label": "Saturation", "better": better, "digits": 1, "role": role}
    mae = {"name": "mae", "label": "Error", "better": "lower", "digits": 3, "role": "comparison"}
    references = [{"name": "grey", "label": "no colour", "role": "baseline"}]
    folder.specs_file.write_text(json.dumps({"metrics": [mae, metric], "references": references}))
    with folder.metrics_file.open("a") as file:
        file.write(json.dumps({"step": 20, "score/mae": 4.0, "score/saturation": 33.0}) + "\n")
    return folder


def test_a_report_reads_what_the_run_says_of_its_scores(tmp_path: Path) -> None:
    head, mae, saturation = compare([own_metric(run(tmp_path / "a"))]).table.splitlines()
    assert head.split() == ["no", "colour", "cgan"]
    assert mae.split() == ["Error", "↓", "9.000", "4.000"]
    assert saturation.split() == ["Saturation", "↑", "-", "33.0"]


def test_the_primary_metric_decides_and_a_diagnostic_one_never(tmp_path: Path) -> None:
    for role, told in (("primary", "cgan reaches Saturation 33.0"), ("diagnostic", "cgan reaches Error 4.000")):
        found = compare([own_metric(run(tmp_path / role), role)])
        assert found.verdict.line.startswith(told)


def test_an_interval_stands_in_the_table_and_decides_nothing(tmp_path: Path) -> None:
    found = compare([own_metric(run(tmp_path / task, task=task), "bound") for task in ("cgan", "cyclegan")])
    assert "Saturation ↑ - 33.0 33.0" in " ".join(found.table.split())
    error, saturation = found.rows
    assert [cell.is_best for cell in error.cells if cell] == [True, True]
    assert [(cell.is_best, cell.to_best) for cell in saturation.cells if cell] == [(False, None)] * 2
    assert [each.name for each in charted(found.specs)] == ["mae"]


@pytest.mark.parametrize("has_specs", [True, False])
def test_scores_of_a_removed_metric_are_still_shown(has_specs: bool, tmp_path: Path) -> None:
    """Of a run with specs beside it, and of one from before there were any."""
    settings = {"evaluate.metrics": [{"name": "classifier", "folder": "classifier"}]}
    folder = trained(tmp_path / "a", scores={"mae": 9.0, "classifier_frechet": 0.3736}, settings=settings)
    if has_specs:
        save_specs(folder, SPECS)
    assert "Fréchet (custom classifier) ↓ - - 0.374 - -" in " ".join(compare([folder]).table.split())


def test_damaged_specs_are_one_line(tmp_path: Path) -> None:
    folder = run(tmp_path / "a")
    folder.specs_file.write_text('{"metrics": []}')
    with pytest.raises(UserError, match=r"metrics\.json is damaged") as refused:
        compare([folder])
    assert "\n" not in str(refused.value)
