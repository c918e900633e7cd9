"""Weights of timm models: where they come from, and what is said where they can't be had."""

import hashlib
import socket
import sys
from pathlib import Path

import pytest
import timm
import torch
from hub import hub
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from colordist.errors import UserError
from colordist.models.feature_network import FeatureNetwork
from colordist.models.pretrained import Pretrained, create_pretrained, state_digest
from colordist.models.timm_encoder import TimmEncoder, encoder_levels


@pytest.fixture
def whole() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("test_resnet").eval()


@pytest.fixture
def file(whole: nn.Module, tmp_path: Path) -> Path:
    save_file(whole.state_dict(), tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


def rgb(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def test_pooled_features_are_those_before_the_classifier(whole: nn.Module, file: Path) -> None:
    network = FeatureNetwork(Pretrained("test_resnet", str(file)))
    digest = network.load_pretrained()
    mean, std = (torch.tensor(whole.pretrained_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))  # type: ignore[index]
    features = network(rgb(2, 3, 64, 64))
    assert features.shape == (2, network.width)
    torch.testing.assert_close(whole.fc(features), whole((rgb(2, 3, 64, 64) - mean) / std))  # type: ignore[operator]
    assert digest == state_digest(network.body)


def test_layers_by_name(whole: nn.Module, file: Path) -> None:
    network = FeatureNetwork(Pretrained("test_resnet", str(file)), ["layer1", "layer3.0"])
    network.load_pretrained()
    seen: list[Tensor] = []
    for name in ("layer1", "layer3.0"):
        whole.get_submodule(name).register_forward_hook(lambda *each: seen.append(each[-1]))
    whole((rgb(1, 3, 64, 64) - network.mean) / network.std)
    found = network(rgb(1, 3, 64, 64))
    assert [each.shape for each in found] == [each.shape for each in seen]
    for one, other in zip(found, seen, strict=True):
        torch.testing.assert_close(one, other)


def test_frozen_and_in_eval_mode_for_good(file: Path) -> None:
    network = FeatureNetwork(Pretrained("test_resnet", str(file))).train()
    assert not any(each.training for each in network.modules())
    assert not any(each.requires_grad for each in network.parameters())


def test_sha256(file: Path) -> None:
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    create_pretrained(Pretrained("test_resnet", str(file), digest.upper()), num_classes=0)
    with pytest.raises(UserError, match=f"has SHA-256 {digest}, not 0000: fetch it again, or correct"):
        create_pretrained(Pretrained("test_resnet", str(file), "0000"), num_classes=0)


def test_a_tag_is_part_of_the_name(whole: nn.Module, file: Path) -> None:
    found = create_pretrained(Pretrained("test_resnet.r160_in1k", str(file)), num_classes=0).state_dict()
    assert found
    assert all(torch.equal(each, whole.state_dict()[name]) for name, each in found.items())


@pytest.mark.parametrize("classes", [0, 10])
def test_another_classifier_does_not_matter(whole: nn.Module, file: Path, tmp_path: Path, classes: int) -> None:
    state = {name: each for name, each in whole.state_dict().items() if not name.startswith("fc.")}
    if classes:
        state |= {"fc.weight": torch.zeros(classes, 96), "fc.bias": torch.zeros(classes)}
    torch.save(state, tmp_path / "tuned.pth")
    tuned, original = (FeatureNetwork(Pretrained("test_resnet", str(each))) for each in (tmp_path / "tuned.pth", file))
    assert tuned.load_pretrained() == original.load_pretrained()


def test_the_content_tells_the_format(file: Path, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(file.read_bytes())
    renamed, original = (
        create_pretrained(Pretrained("test_resnet", str(each)), num_classes=0)
        for each in (tmp_path / "weights.bin", file)
    )
    assert state_digest(renamed) == state_digest(original)


def one_line(model: Pretrained) -> str:
    with pytest.raises(UserError) as caught:
        create_pretrained(model, num_classes=0)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_mistakes(file: Path, tmp_path: Path) -> None:
    assert "has no weights of test_efficientnet" in one_line(Pretrained("test_efficientnet", str(file)))
    assert "there is no file" in one_line(Pretrained("test_resnet", str(tmp_path / "missing.pth")))
    assert "there is no file" in one_line(Pretrained("test_resnet", str(tmp_path)))
    (tmp_path / "text.pth").write_text("no weights")
    assert "holds no weights" in one_line(Pretrained("test_resnet", str(tmp_path / "text.pth")))
    (tmp_path / "half.safetensors").write_bytes(file.read_bytes()[:1000])
    assert "holds no weights" in one_line(Pretrained("test_resnet", str(tmp_path / "half.safetensors")))
    state = load_file(file)
    state["conv1.0.weight"][0, 0, 0, 0] = torch.nan
    save_file(state, tmp_path / "nan.safetensors")
    assert "conv1.0.weight in" in (message := one_line(Pretrained("test_resnet", str(tmp_path / "nan.safetensors"))))
    assert "has Inf or NaN" in message
    assert "did you mean test_resnet" in one_line(Pretrained("test_resnett", str(file)))


def test_a_pickle_with_code_is_refused(tmp_path: Path) -> None:
    torch.save({"weights": Path("anything")}, tmp_path / "code.pth")
    assert "holds no weights" in one_line(Pretrained("test_resnet", str(tmp_path / "code.pth")))


def test_an_unknown_layer() -> None:
    with pytest.raises(
        UserError, match=r"^a\.b: test_resnet has no layer layer9: try one like layer\d, .* or leave a\.b out$"
    ):
        FeatureNetwork(Pretrained("test_resnet"), ["layer9"], "a.b")


def test_without_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    message = one_line(Pretrained("test_resnet"))
    assert "the weights of test_resnet can't be fetched" in message
    assert "fetch https://huggingface.co/timm/test_resnet.r160_in1k/resolve/main/model.safetensors where" in message
    assert message.endswith("name that file: model.weights FILE")
    assert "timm/resnet18.gluon_in1k/resolve/main" in one_line(Pretrained("gluon_resnet18_v1b"))  # an old name


def test_a_hub_that_does_not_answer_is_given_up_soon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    waits: list[float] = []
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("time.sleep", waits.append)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # and doesn't listen
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert "the weights of test_resnet can't be fetched" in one_line(Pretrained("test_resnet"))
    assert 0 < sum(waits) < 5


def test_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder_levels.cache_clear()
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"model\.encoder needs the package timm: pip install timm"):
        encoder_levels("test_resnet")


def test_weights_are_fetched_once(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> str:
        model = Pretrained("test_resnet")
        TimmEncoder(model.name, pretrained=True).load_pretrained(model)
        return FeatureNetwork(model).load_pretrained()

    expected = FeatureNetwork(Pretrained("test_resnet", str(file))).load_pretrained()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with hub(file) as (address, downloads):
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        assert load() == expected
    assert load() == expected  # the second time without the hub
    assert len(downloads) == 1
