"""The experiments compare like with like, and name scores that exist."""

import argparse
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from helpers import ROOT

from colordist import registry
from colordist.keys import nest
from colordist.metrics import SPECS
from colordist.metrics.timm_features import MODELS, specs

MODULES = ("training_runs", "ladder", "transfer", "upsampling", "photographs", "hints")


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[str, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "experiments"))
        yield {name: importlib.import_module(name) for name in MODULES}
        for name in MODULES:
            del sys.modules[name]


def options(photos: Path, **changed: Any) -> argparse.Namespace:  # noqa: ANN401  any option
    given: dict[str, Any] = {"photos": photos, "target": "horse", "out": photos / "runs", "set": ["model.width=4"]}
    given |= {"steps": 8, "first_steps": 20, "seeds": [0, 1], "fractions": [0.1, 1.0], "config": None}
    return argparse.Namespace(**given | changed)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("cat", "horse", "ship", ".hidden"):
        (tmp_path / "train" / name).mkdir(parents=True)
    return tmp_path


def test_pairs_differ_in_their_start_alone(scripts: dict[str, Any], photos: Path) -> None:
    first, *others = scripts["transfer"].jobs(options(photos))
    assert first.settings["data.classes"] == ["cat", "ship"]  # no image of the target
    assert len(others) == 2 * 2 * 2
    assert len({job.folder.path for job in [first, *others]}) == 9
    for scratch, transfer in zip(others[::2], others[1::2], strict=True):
        assert transfer.settings == scratch.settings | {"train.init_from": first.folder.path}
        assert scratch.settings["data.classes"] == ["horse"]
        assert scratch.settings["data.seed"] == scratch.settings["seed"]
        assert (scratch.group, transfer.group) == (
            f"{scratch.settings['data.fraction']:.0%} of the images, scratch",
            f"{scratch.settings['data.fraction']:.0%} of the images, transfer",
        )


def test_a_folder_without_the_target_is_refused(scripts: dict[str, Any], photos: Path) -> None:
    with pytest.raises(SystemExit, match="needs a folder hose"):
        list(scripts["transfer"].jobs(options(photos, target="hose")))


def test_arms_on_photographs_have_the_weights_that_they_name(scripts: dict[str, Any], tmp_path: Path) -> None:
    chosen = options(tmp_path, root=tmp_path, weights=tmp_path, feature_weight=2.0, set=[])
    file = str(tmp_path / "tf_efficientnet_lite0.safetensors")
    arms = scripts["photographs"].ARMS
    settings = {arm: scripts["photographs"].settings(arm, chosen) for arm in arms}
    found = {arm: each for arm, each in settings.items() if arms[arm].hints_of is None}
    hinted = {arm: settings[each.hints_of] for arm, each in arms.items() if each.hints_of}
    assert {arm: settings[arm] for arm in hinted} == {arm: each | {"task.hints": True} for arm, each in hinted.items()}
    assert {arm: each["task.feature_weight"] for arm, each in found.items() if "task.feature_weight" in each} == {
        "features": 2.0,
        "cgan": 20.0,
    }
    for arm, each in found.items():
        config = registry.make_config(nest(each))
        assert bool(config.task.pretrained) == (arm in ("features", "cgan"))
        assert bool(config.model.pretrained) == (arm not in ("scratch", "no-weights"))
        assert each.get("task.feature_weights", file) == file  # nothing is fetched


def test_mean_and_range_by_hand(scripts: dict[str, Any]) -> None:
    spread = {"mean": 9.25, "min": 9.0, "max": 9.5, "n": 2}
    assert scripts["training_runs"].as_text(spread, 2) == "9.25 (9.00 to 9.50, n=2)"
    assert scripts["training_runs"].as_text(spread | {"n": 1}, 1) == "9.2 (n=1)"


@pytest.mark.parametrize("name", ["ladder", "transfer"])
def test_scores_of_the_tables_exist(scripts: dict[str, Any], name: str) -> None:
    known = {spec.name for spec in (*SPECS.metrics, *specs(MODELS[0]))}
    assert set(scripts[name].SHOWN) <= known


def test_pixels_near_an_edge_of_color(scripts: dict[str, Any]) -> None:
    """A step between columns 9 and 10 marks both, and three more on either side."""
    for height, expected in ((10.5, list(range(6, 14))), (9.5, [])):
        color = torch.zeros(2, 5, 30)
        color[1, :, 10:] = height
        near = scripts["upsampling"].near_edges(color)
        assert near[2].nonzero().flatten().tolist() == expected
        assert torch.equal(scripts["upsampling"].near_edges(color.mT), near.mT)


def test_errors_count_each_image_once(scripts: dict[str, Any]) -> None:
    """An image without edges counts elsewhere alone."""
    nan = float("nan")
    rows = [{"all": 2.0, "near": 4.0, "elsewhere": 1.0}, {"all": 3.0, "near": nan, "elsewhere": 3.0}]
    others = [{"all": 2.0, "near": 8.0, "elsewhere": 1.0}, {"all": 3.0, "near": nan, "elsewhere": 3.0}]
    expected = {"all": 2.5, "near": 4.0, "elsewhere": 2.0, "near_ratio": 0.5, "images_with_edges": 1.0}
    assert scripts["upsampling"].mean(rows, others) == expected


def test_curves_of_hints_are_drawn(scripts: dict[str, Any]) -> None:
    rising = {count: {"psnr": 20.0 + count, "ciede2000": 12.0} for count in (0, 1, 5, 10, 50)}
    level = {0: {"psnr": 45.0, "ciede2000": 11.0}}
    root = ElementTree.fromstring(scripts["hints"].drawn({"with": rising, "without": level}))
    lines = [each.get("points", "").split() for each in root.iter("{http://www.w3.org/2000/svg}polyline")]
    assert [len(each) for each in lines] == [5, 2, 5, 2]
    heights = [float(each.split(",")[1]) for each in lines[0]]
    assert heights == sorted(heights, reverse=True)  # downwards
    assert heights[0] == 260
    assert heights[-1] == 40
    assert lines[1][0].split(",")[1] == lines[1][1].split(",")[1]
    words = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"with", "without", "hints", "50"} <= {*words}
