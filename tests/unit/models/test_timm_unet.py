"""The U-Net with a timm model as encoder: levels, frozen statistics, rebuilding, export."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from helpers import config_with
from torch import Tensor, nn

from colordist import registry
from colordist.errors import UserError
from colordist.inference import onnx_file
from colordist.models import timm_encoder
from colordist.models.factory import build_generator
from colordist.models.seeding import seeded
from colordist.models.timm_encoder import encoder_levels
from colordist.models.timm_unet import TimmUNet
from colordist.run import snapshot
from colordist.tasks.autoencoder import AutoencoderSettings, AutoencoderTask

ENCODERS = {
    "test_efficientnet": 0,  # TensorFlow's padding isn't symmetric
    "test_resnet": 0,
    "test_convnext": 2,  # its first level has stride 4
    "vgg11": -1,  # its first level has full resolution
}
"""Encoders, and levels that the stem adds beyond full resolution."""


def build(encoder: str = "test_efficientnet", weights: str = "none", **settings: Any) -> TimmUNet:  # noqa: ANN401
    chosen = registry.make_settings(
        "model", {"name": "timm_unet", "encoder": encoder, "weights": weights, "width": 4, **settings}
    )
    network = seeded(0, lambda: build_generator(chosen))
    assert isinstance(network, TimmUNet)
    nn.init.normal_(network.last.weight)  # it starts from grey
    return network


def grey(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("weights", ["pretrained", "none"])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_parameter_learns_at_every_level(encoder: str, weights: str) -> None:
    network = build(encoder, weights).train()
    output = network(grey(2, 1, 64, 96))
    assert output.shape == (2, 2, 64, 96)
    output.square().mean().backward()
    assert [name for name, each in network.named_parameters() if each.grad is None] == []
    strides = encoder_levels(encoder).strides
    assert len(network.up) == (strides[-1]).bit_length() - 1  # a skip connection at every level
    assert len(network.stem) == strides[0].bit_length() - 1


def test_swin_takes_any_multiple_and_its_channels_come_last() -> None:
    assert encoder_levels("swin_tiny_patch4_window7_224").channels_last
    network = build("swin_tiny_patch4_window7_224").eval()
    with torch.no_grad():
        assert network(grey(1, 1, 64, 96)).shape == (1, 2, 64, 96)


def test_a_grey_image_is_normalised_as_the_encoder_wants() -> None:
    encoder = build("test_resnet", "pretrained").encoder
    config = timm.get_pretrained_cfg("test_resnet")
    assert config is not None
    seen: list[Tensor] = []
    encoder.body.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs))
    encoder(torch.full((1, 1, 64, 64), 0.5))  # 0.75 of white
    for channel, (mean, std) in enumerate(zip(config.mean, config.std, strict=True)):
        torch.testing.assert_close(seen[0][:, channel], torch.full((1, 64, 64), (0.75 - mean) / std))


def test_statistics_of_pretraining_stay_as_they_are() -> None:
    network = build("test_efficientnet", "pretrained").train()
    before = {name: each.clone() for name, each in network.named_buffers()}
    assert any("running_mean" in name for name in before)
    alone, beside = network(grey(1, 1, 64, 64)), network(torch.cat([grey(1, 1, 64, 64), grey(3, 1, 64, 64)]))
    for name, each in network.named_buffers():
        assert torch.equal(each, before[name]), name
    torch.testing.assert_close(beside[:1], alone)


def test_no_layer_is_random() -> None:
    network = build("swin_tiny_patch4_window7_224").train()  # by default with stochastic depth
    image, before = grey(4, 1, 64, 64), torch.random.get_rng_state()
    assert torch.equal(network(image), network(image))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_without_weights_there_is_no_batch_norm() -> None:
    for encoder in ("test_efficientnet", "test_resnet", "mobilenetv3_small_050", "nextvit_small"):
        network = build(encoder, "none")
        assert not [each for each in network.modules() if isinstance(each, nn.BatchNorm1d | nn.BatchNorm2d)]


def test_activations_beside_batch_norm_survive_its_replacement() -> None:
    def activations(network: nn.Module) -> int:
        return sum(isinstance(each, nn.ReLU | nn.SiLU) for each in network.modules())

    assert activations(build("test_efficientnet", "none").encoder) == activations(
        build("test_efficientnet", "pretrained").encoder
    )


def test_weights_of_a_file_reach_the_encoder(tmp_path: Path) -> None:
    whole = timm.create_model("test_efficientnet")
    torch.save(whole.state_dict(), tmp_path / "weights.pth")
    network = build("test_efficientnet", str(tmp_path / "weights.pth"))
    digest = network.load_pretrained()
    own = network.encoder.body.state_dict()
    assert own
    assert all(torch.equal(own[name], each) for name, each in whole.state_dict().items() if name in own)
    assert digest == build("test_efficientnet", str(tmp_path / "weights.pth")).load_pretrained()
    assert build("test_efficientnet", "none").load_pretrained() is None


def test_a_snapshot_is_rebuilt_without_its_weights_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = build("test_efficientnet", "a/file").eval()
    task = AutoencoderTask(AutoencoderSettings(name="autoencoder"), network.settings)
    snapshot.write(tmp_path / "step-000001", task, {"generator": network}, {"step": 1, "image_size": 64})
    monkeypatch.setattr(timm_encoder, "create_pretrained", lambda *_, **__: pytest.fail("fetched weights"))
    trained = snapshot.read(tmp_path / "latest")
    assert trained.about["model"]["weights"] == "pretrained"  # no path of this machine
    with torch.no_grad():
        assert torch.equal(trained.sample(grey(1, 1, 64, 64)), network(grey(1, 1, 64, 64)))


@pytest.mark.parametrize("encoder", ["test_efficientnet", "test_resnet", "test_convnext2"])  # a block a level
def test_export(encoder: str, tmp_path: Path) -> None:
    network = build(encoder, "pretrained").eval()
    task = AutoencoderTask(AutoencoderSettings(name="autoencoder"), network.settings)
    snapshot.write(tmp_path / "step-000001", task, {"generator": network}, {"step": 1, "image_size": 64})
    assert onnx_file.write(tmp_path / "model.onnx", snapshot.read(tmp_path / "latest")) <= onnx_file.TOLERANCE


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model.encoder": "resnt18"}, "model.encoder: timm has no model 'resnt18': did you mean resnet18, "),
        (
            {"model.encoder": "resnet18.a9_in1k"},
            "timm has no weights 'a9_in1k' of resnet18: leave a9_in1k out, or name",
        ),
        ({"model.encoder": "mobilevitv2_050"}, "48, 24, 12, 6, 4 pixels wide for images of 96, which don't fit on"),
        ({"model.encoder": "inception_v3"}, "model.encoder: inception_v3 can't take images of 64 pixels"),
        ({"model.encoder": "vit_tiny_patch16_224"}, "takes images of 224 pixels only: try resnet18"),
        ({"model.encoder": "test_resnet", "data.image_size": 48}, "a multiple of 32, at least 64: try data.image_size"),
        ({"model.encoder": "test_resnet", "data.image_size": 100}, "try data.image_size 96"),
        ({"model.weights": ""}, "model.weights is empty: try model.weights pretrained"),
        ({"model.sha256": "0" * 64}, "model.sha256 checks a file, but model.weights is pretrained: name the file, or"),
        ({"model.width": 2}, "model.width is 2, but must be at least 4"),
    ],
)
def test_mistakes(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message.replace("[", r"\[")) as caught:
        config_with({"model.name": "timm_unet", "data.image_size": 64, **settings})
    assert "\n" not in str(caught.value)
