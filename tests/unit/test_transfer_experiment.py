"""experiments/transfer.py compares like with like."""

import argparse
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from helpers import ROOT


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("transfer_experiment", ROOT / "experiments" / "transfer.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def options(photos: Path, **changed: Any) -> argparse.Namespace:  # noqa: ANN401  any option
    given: dict[str, Any] = {"photos": photos, "target": "horse", "out": photos / "runs", "set": ["model.width=4"]}
    given |= {"steps": 8, "first_steps": 20, "seeds": [0, 1], "fractions": [0.1, 1.0]}
    return argparse.Namespace(**given | changed)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("cat", "horse", "ship", ".hidden"):
        (tmp_path / "train" / name).mkdir(parents=True)
    return tmp_path


def test_pairs_differ_in_their_start_alone(script: ModuleType, photos: Path) -> None:
    first, *others = script.jobs(options(photos))
    assert first.settings["data.classes"] == ["cat", "ship"]  # nothing of what is to be learned with few images
    assert len(others) == 2 * 2 * 2
    assert len({job.folder.path for job in [first, *others]}) == 9
    for scratch, transfer in zip(others[::2], others[1::2], strict=True):
        assert transfer.settings == scratch.settings | {"train.init_from": first.folder.path}
        assert scratch.settings["data.classes"] == ["horse"]
        assert scratch.settings["data.seed"] == scratch.settings["seed"]
        assert (scratch.start, transfer.start) == ("scratch", "transfer")


def test_a_folder_without_the_target_is_refused(script: ModuleType, photos: Path) -> None:
    with pytest.raises(SystemExit, match="needs a folder hose"):
        list(script.jobs(options(photos, target="hose")))


def test_mean_and_range_by_hand(script: ModuleType) -> None:
    spread = {"mean": 9.25, "min": 9.0, "max": 9.5, "n": 2}
    assert script._cell(spread, 2) == "9.25 (9.00 to 9.50, n=2)"
    assert script._cell(spread | {"n": 1}, 1) == "9.2 (n=1)"
