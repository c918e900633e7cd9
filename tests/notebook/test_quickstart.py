"""docs/quickstart.ipynb runs from its first cell to its last one, with less training."""

import io
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
LESS = "--train.steps 8 --evaluate.every 8 --data.train_images 64 --data.test_images 16"


def test_every_cell_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("configs", "docs/pictures"):
        (tmp_path / folder).parent.mkdir(exist_ok=True)
        (tmp_path / folder).symlink_to(ROOT / folder)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(ROOT / "docs" / "quickstart.ipynb", as_version=4)
    (parameters,) = [each for each in notebook.cells if "parameters" in each.metadata.get("tags", [])]
    parameters.source = f'options = {{"ae": "{LESS}", "cgan": "{LESS} --task.warmup_steps 2"}}'
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path / "docs")}}
    )
    client.execute()
    pictures = [
        Image.open(io.BytesIO(b64decode(output.data["image/png"])))
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert [each.size for each in (pictures[0], pictures[1], pictures[3])] == [(720, 240), (720, 240), (1080, 240)]
    grey, coloured = (np.asarray(pictures[0].convert("HSV"))[:, left : left + 360, 1] for left in (0, 360))
    assert grey.mean() < 10 < 30 < coloured.mean()
    for name in ("ae", "cgan"):
        assert (tmp_path / "runs" / "notebook" / name / "finished").exists()
    assert "verdict" in (tmp_path / "runs" / "notebook" / "report.html").read_text("utf-8").lower()
