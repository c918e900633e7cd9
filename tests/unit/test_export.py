"""export: the network in an ONNX file answers as it does here, at sizes that it was not traced at."""

from pathlib import Path

import pytest
import torch
from torch import nn

from colordist.color import AB_SCALE
from colordist.config import ModelConfig, RunError, UserError
from colordist.export import export
from colordist.inference import onnx_file
from colordist.models import build_generator
from colordist.run import snapshot

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def network(config: ModelConfig) -> nn.Module:
    """A network that answers with colours, not with the grey of its start."""
    torch.manual_seed(0)
    module = build_generator(config)
    for parameter in list(module.parameters())[-2:]:
        nn.init.normal_(parameter)
    return module.eval()


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig(name="unet", color_space="lab", width=4, depth=2),
        ModelConfig(name="autoencoder", color_space="rgb", width=4, depth=2),
        ModelConfig(blocks=1, attention_level=2, width=4, depth=2),
    ],
    ids=["unet", "autoencoder", "refined"],
)
def test_onnxruntime_agrees(config: ModelConfig, tmp_path: Path) -> None:
    module = network(config)
    snapshot.write(tmp_path / "run" / "snapshots" / "step-000001", module, config, {"step": 1})
    export(tmp_path / "run", tmp_path / "out" / "network.onnx")

    session = onnxruntime.InferenceSession(tmp_path / "out" / "network.onnx", providers=["CPUExecutionProvider"])
    for shape in ((1, 1, 8, 8), (3, 1, 20, 12), (2, 1, 32, 64)):
        grey = torch.rand(shape)
        with torch.no_grad():
            color = module(grey * 2 - 1)
        expected = color * AB_SCALE if config.color_space == "lab" else (color + 1) / 2
        found = torch.from_numpy(session.run(None, {"grey": grey.numpy()})[0])
        torch.testing.assert_close(found, expected, atol=1e-4 * max(1.0, float(expected.abs().max())), rtol=0)


def test_noise_is_refused(tmp_path: Path) -> None:
    config = ModelConfig(width=4, depth=1, noise=2)
    with pytest.raises(UserError, match=r"takes noise can't be exported: train one with model\.noise 0$"):
        onnx_file.write(tmp_path / "network.onnx", network(config), config)


def test_a_file_that_disagrees_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "TOLERANCE", -1.0)
    config = ModelConfig(width=4, depth=1)
    with pytest.raises(RunError, match="isn't written"):
        onnx_file.write(tmp_path / "network.onnx", network(config), config)
    assert not (tmp_path / "network.onnx").exists()
