"""Components of another package: tests/extension adds a generator, an iterative task, a source and a metric.

Once by entry points, once by ``--import``. The task `refine` runs its generator several times, so all that gets from
grey to colours must go through ``Task.sample``.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers import ROOT
from PIL import Image

EXTENSION = ROOT / "tests" / "extension"
# Several verbs in one process, since each start imports torch.
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


def python(*arguments: str, extension: bool = True) -> subprocess.CompletedProcess[str]:
    paths = [str(ROOT), *([str(EXTENSION)] if extension else [])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
def test_all_verbs_use_components_of_another_package(offer: Offer, tmp_path: Path) -> None:
    run, photo, onnx = tmp_path / "run", tmp_path / "photo.png", tmp_path / "network.onnx"
    Image.fromarray(np.arange(20 * 24, dtype=np.uint16).reshape(20, 24).astype(np.uint8)).save(photo)
    settings = {
        **offer.names(),
        **{"data.image_size": 16, "task.iterations": 2, "model.hidden": 4, "run.dir": run},
        "evaluate.metrics": f"[{{name: {offer.prefix}redness, above: 5}}]",
        **{"train.steps": 4, "train.global_batch_size": 4, "train.precision": "fp32", "log.every": 2},
    }
    commands = [
        ["train", *(text for key, value in settings.items() for text in (f"--{key}", str(value)))],
        ["evaluate", str(run), "-o", str(tmp_path / "scores.json")],
        ["colorize", str(run), str(photo), "-o", str(tmp_path / "colored")],
        ["export", str(run), "--onnx", str(onnx)],
        ["report", str(run), "-o", str(tmp_path / "report.html")],
    ]
    done = python("-c", VERBS, json.dumps([[*command, *offer.options] for command in commands]))
    assert done.returncode == 0, done.stderr

    before = yaml.safe_load((run / "config.yaml").read_text())
    assert [before["task"]["name"], before["model"]["name"], before["data"]["source"]] == [*offer.names().values()]
    assert (before["task"]["iterations"], before["model"]["hidden"]) == (2, 4)
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert any("charbonnier" in key for record in records for key in record)
    evaluation = json.loads((tmp_path / "scores.json").read_text())
    assert evaluation["images"] == 4
    scores = [record["score/redness"] for record in records if "score/redness" in record]
    assert evaluation["scores"]["redness"] == scores[-1]
    with Image.open(run / "samples" / "step-000004.png") as grid:
        assert np.ptp(np.asarray(grid), axis=-1).any()  # it has colours
    with Image.open(tmp_path / "colored" / "photo.png") as picture:
        assert picture.size == (24, 20)
        assert np.ptp(np.asarray(picture), axis=-1).any()
    assert onnx.stat().st_size > 0
    assert "onnxruntime" in done.stdout  # the file was compared with the network
    page = (tmp_path / "report.html").read_text()
    assert all(name in page for name in offer.names().values())
    assert "Redness" in page

    # Without the package: one line that names it.
    alone = python("-m", "colordist.colorize", str(run), str(photo), "-o", str(tmp_path / "other"), extension=False)
    assert (alone.returncode, alone.stderr.count("\n")) == (2, 1), alone.stderr
    assert "of colordist_extension: install it, or give --import MODULE" in alone.stderr
    assert not (tmp_path / "other").exists()
