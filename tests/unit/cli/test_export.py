"""export: the network in an ONNX file answers as it does here, at sizes that it was not traced at."""

from pathlib import Path

import pytest
import torch
from helpers import random_generator, write_snapshot

from colordist.color import AB_SCALE
from colordist.config import GeneratorSettings
from colordist.errors import RunError, UserError
from colordist.export import export
from colordist.inference import onnx_file
from colordist.models.autoencoder import AutoencoderSettings
from colordist.models.unet import UNetSettings
from colordist.run import snapshot

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.mark.parametrize(
    "settings",
    [
        UNetSettings(name="unet", color_space="lab", width=4, depth=2),
        AutoencoderSettings(name="autoencoder", color_space="rgb", width=4, depth=2),
        UNetSettings(name="unet", blocks=1, attention_level=2, width=4, depth=2),
    ],
    ids=["unet", "autoencoder", "refined"],
)
def test_onnxruntime_agrees(settings: GeneratorSettings, tmp_path: Path) -> None:
    module = random_generator(settings, 0.2)
    write_snapshot(tmp_path / "run" / "snapshots" / "step-000001", settings, module, step=1)
    export(tmp_path / "run", tmp_path / "out" / "network.onnx")

    session = onnxruntime.InferenceSession(tmp_path / "out" / "network.onnx", providers=["CPUExecutionProvider"])
    for shape in ((1, 1, 8, 8), (3, 1, 20, 12), (2, 1, 32, 64)):
        grey = torch.rand(shape)
        with torch.no_grad():
            color = module(grey * 2 - 1)
        expected = color * AB_SCALE if settings.color_space == "lab" else (color + 1) / 2
        found = torch.from_numpy(session.run(None, {"grey": grey.numpy()})[0])
        torch.testing.assert_close(found, expected, atol=1e-4 * max(1.0, float(expected.abs().max())), rtol=0)


@pytest.mark.parametrize(("output", "told"), [("file/a.onnx", "file is no folder: name another"), ("a", "already")])
def test_an_output_that_cannot_be_written_is_found_before_the_network_is_read(
    output: str, told: str, tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "model.json").write_text("{}")  # damaged
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=rf"--onnx .*{told}"):
        export(tmp_path / "a", tmp_path / output)


def test_noise_is_refused(tmp_path: Path) -> None:
    settings = UNetSettings(name="unet", width=4, depth=1, noise=2)
    write_snapshot(tmp_path / "a", settings, random_generator(settings))
    with pytest.raises(UserError, match=r"latent codes can't be exported: train one with model\.noise 0$"):
        onnx_file.write(tmp_path / "network.onnx", snapshot.read(tmp_path / "a"))


def test_a_file_that_disagrees_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "TOLERANCE", -1.0)
    settings = UNetSettings(name="unet", width=4, depth=1)
    write_snapshot(tmp_path / "a", settings, random_generator(settings))
    with pytest.raises(RunError, match="isn't written"):
        onnx_file.write(tmp_path / "network.onnx", snapshot.read(tmp_path / "a"))
    assert not (tmp_path / "network.onnx").exists()
