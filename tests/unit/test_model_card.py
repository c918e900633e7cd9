"""Model cards: what they say of a snapshot, and that they say the same wherever it was trained."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import alone_on_the_cpu, config_with
from runs import run

from colordist import registry
from colordist.config import Config
from colordist.metrics import METRICS
from colordist.metrics.table import markdown
from colordist.run.folder import RunFolder
from colordist.run.model_card import ModelCard, _weakness

REFERENCES = {
    "grey": {"mae": 8.0, "psnr": 20.0, "colorfulness": 0.0},
    "constant": {"mae": 6.0, "psnr": 22.0, "colorfulness": 10.0},
    "oracle": {"mae": 1.0, "psnr": 42.0, "colorfulness": 35.0},
    "truth": {"mae": 0.0, "psnr": 100.0, "colorfulness": 40.0},
}
SCORES = {"mae": 3.5, "psnr": 27.0, "colorfulness": 34.0}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunFolder]:
    with alone_on_the_cpu(monkeypatch):
        yield run(tmp_path / "run", evaluate__every=3)


def card(config: Config) -> str:
    return ModelCard(config, 5000, 1000, "c0de").text(500, SCORES, REFERENCES)


def test_what_it_says() -> None:
    settings = {"optimizer.generator.lr": 0.25, "model.norm": "instance"}
    text = card(config_with(settings | {"data.source": "cifar10", "data.classes": ["horse", "cat"]}))
    for part in (
        "The generator `unet` of colordist.",
        "Source `synthetic`: landscapes painted by a program",
        "Classes: horse, cat.",
        "It learned from 5000 images and was scored on 1000 others, all at 32x32 pixels.",
        "500 of 3300 steps of 16 images, beginning with random weights, in auto, seed 0.",
        "Code c0de.",
        "- `optimizer.generator.lr: 0.25`\n",
        '- `model.norm: "instance"`\n',
        "| MAE % ↓ | 8.00 | 6.00 | 3.50 | 1.00 | 0.00 |",
        "colordist colorize",
        "## Limits",
    ):
        assert part in text, part
    assert "- `train" not in text  # the defaults


def test_the_defaults_are_told_as_such() -> None:
    assert "not the defaults:\n\n- none\n" in card(config_with({}))


def test_no_place_is_told() -> None:
    places = {"data.root": "/home/me/photos", "train.init_from": "/home/me/run", "run.dir": "/home/me/other"}
    text = card(config_with(places | {"data.source": "folder"}))
    assert "/home" not in text
    assert "beginning with the weights of another snapshot" in text


def test_how_it_is_watched_is_not_told() -> None:
    assert card(config_with({"log.every": 7})) == card(config_with({}))


def test_the_weakest_score_by_hand() -> None:
    # MAE: (6 - 3.5) / (6 - 1) is 50 % of the way; PSNR: (27 - 22) / (42 - 22), 25 %; colourfulness: 34 is 6 from the
    # truth's 40, where the better floor is 30 from it: 80 %.
    assert (
        _weakness(SCORES, REFERENCES) == "Weakest score: PSNR dB, 25% of the way from the better floor to the ceiling."
    )
    worse = SCORES | {"mae": 6.5}
    assert _weakness(worse, REFERENCES) == "Weakest score: MAE %, which is worse than that of the better floor."
    assert _weakness(SCORES, {}) == "There are no floors to set the scores beside."


def test_a_table_in_markdown() -> None:
    mae = [metric for metric in METRICS if metric.name == "mae"]
    assert markdown({"a": {"mae": 1.0}, "b": {}}, mae) == "|  | a | b |\n| --- | ---: | ---: |\n| MAE % ↓ | 1.00 | - |"


def test_each_snapshot_of_a_run_has_one(folder: RunFolder) -> None:
    for step in (0, 3, 6):
        text = (folder.snapshots / f"step-00000{step}" / "README.md").read_text()
        assert f"{step} of 6 steps of 4 images" in text
        assert "It learned from 12 images and was scored on 4 others" in text
        assert f"| step {step} |" in text
        assert "Weakest score: " in text  # the floors were found
        assert str(folder.path) not in text


def test_it_names_every_choice() -> None:
    """A component without words would fail when its first snapshot is written."""
    for kind, key in ("task", "task.name"), ("model", "model.name"), ("source", "data.source"):
        for choice in registry.OURS[kind]:  # type: ignore[index]
            assert card(config_with({key: choice})), choice
