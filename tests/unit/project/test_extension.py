"""Components of another package: tests/extension adds a generator, an iterative task, a source and a metric.

Once by entry points, once by ``--import``. The task `refine` runs its generator several times, so all that gets from
grey to colours must go through ``Task.sample``.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers import ROOT
from PIL import Image

from colordist import colorize

EXTENSION = ROOT / "tests" / "extension"
# All verbs in one process, since each start imports torch.
VERBS = """
import json, sys
from colordist.cli import main
for command in json.loads(sys.argv[1]):
    sys.argv = ["colordist", *command]
    main()
"""


@dataclass(frozen=True)
class Offer:
    """How the extension's components get in, and under which prefix of their names."""

    prefix: str
    options: tuple[str, ...]

    def names(self) -> dict[str, str]:
        """The settings that choose them, but for the metric."""
        chosen = {"task.name": "refine", "model.name": "pointwise", "data.source": "stripes"}
        return {key: self.prefix + name for key, name in chosen.items()}


OFFERS = {
    "entry points": Offer("", ()),
    "--import": Offer("registered_", ("--import", "colordist_extension_registered")),
}


@dataclass(frozen=True)
class Done:
    """What all verbs left, for one offer, and what they printed."""

    folder: Path
    printed: str


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Done]:
    """By offer."""
    folders = {name: tmp_path_factory.mktemp("offer") for name in OFFERS}
    commands = [command for name, folder in folders.items() for command in commands_of(OFFERS[name], folder)]
    paths = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(EXTENSION)]), "OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        [sys.executable, "-c", VERBS, json.dumps(commands)], capture_output=True, text=True, env=os.environ | paths
    )
    assert process.returncode == 0, process.stderr
    return {name: Done(folder, process.stdout) for name, folder in folders.items()}


def commands_of(offer: Offer, folder: Path) -> list[list[str]]:
    """All verbs."""
    photo = folder / "photo.png"
    Image.fromarray(np.arange(20 * 24, dtype=np.uint16).reshape(20, 24).astype(np.uint8)).save(photo)
    run = str(folder / "run")
    settings = {
        **offer.names(),
        **{"data.image_size": 16, "task.iterations": 2, "model.hidden": 4, "run.dir": run},
        "evaluate.metrics": f"[{{name: {offer.prefix}redness, above: 5}}]",
        **{"train.steps": 4, "train.global_batch_size": 4, "train.precision": "fp32", "log.every": 2},
    }
    commands = [
        ["train", *(text for key, value in settings.items() for text in (f"--{key}", str(value)))],
        ["evaluate", run, "-o", str(folder / "scores.json")],
        ["colorize", run, str(photo), "-o", str(folder / "colored")],
        ["export", run, "--onnx", str(folder / "network.onnx")],
        ["report", run, "-o", str(folder / "report.html")],
    ]
    return [[*command, *offer.options] for command in commands]


@pytest.mark.parametrize("name", OFFERS)
def test_all_verbs_use_components_of_another_package(name: str, done: Mapping[str, Done]) -> None:
    offer, folder = OFFERS[name], done[name].folder
    before = yaml.safe_load((folder / "run" / "config.yaml").read_text())
    assert [before["task"]["name"], before["model"]["name"], before["data"]["source"]] == [*offer.names().values()]
    assert (before["task"]["iterations"], before["model"]["hidden"]) == (2, 4)
    records = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert any("charbonnier" in key for record in records for key in record)
    evaluation = json.loads((folder / "scores.json").read_text())
    assert evaluation["images"] == 4
    scores = [record["score/redness"] for record in records if "score/redness" in record]
    assert evaluation["scores"]["redness"] == scores[-1]
    with Image.open(folder / "run" / "samples" / "step-000004.png") as grid:
        assert np.ptp(np.asarray(grid), axis=-1).any()  # it has colours
    with Image.open(folder / "colored" / "photo.png") as picture:
        assert picture.size == (24, 20)
        assert np.ptp(np.asarray(picture), axis=-1).any()
    onnx = folder / "network.onnx"
    assert onnx.stat().st_size > 0
    assert f"{onnx}: step 4; onnxruntime and torch differ by" in done[name].printed  # the file was compared
    page = (folder / "report.html").read_text()
    assert all(each in page for each in offer.names().values())
    assert "Redness" in page


@pytest.mark.parametrize("name", OFFERS)
def test_without_the_package_one_line_names_it(
    name: str, done: Mapping[str, Done], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = done[name].folder
    arguments = [str(folder / "run"), str(folder / "photo.png"), "-o", str(folder / "other")]
    monkeypatch.setattr(sys, "argv", ["colordist colorize", *arguments])
    with pytest.raises(SystemExit) as left:
        colorize.main()
    told = capsys.readouterr().err
    assert (left.value.code, told.count("\n")) == (2, 1), told
    assert "of colordist_extension: install it, or give --import MODULE" in told
    assert not (folder / "other").exists()
