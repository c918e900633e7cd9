"""The metric ``features``: scores by a small timm model with random weights, from a file; and mistakes, in one line."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import alone_on_the_cpu, timm_weights
from runs import run
from torch import Tensor

from colordist.cli.parser import parse
from colordist.errors import UserError
from colordist.evaluate import evaluate
from colordist.evaluate import parse as parse_evaluate
from colordist.metrics.features import FeatureScores
from colordist.metrics.metric import EvalSet
from colordist.metrics.optional import build_metrics
from colordist.metrics.timm_features import scaled
from colordist.tasks.cgan import CGANSettings

NAME = "test_efficientnet"
EVAL_SET = EvalSet(image_size=16, device=torch.device("cpu"))
SCORES = {f"frechet_{NAME}", f"kernel_{NAME}", f"kernel_{NAME}_low", f"kernel_{NAME}_high"}


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with alone_on_the_cpu(monkeypatch):
        yield


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return timm_weights(tmp_path_factory.mktemp("weights") / "model.safetensors", NAME)


def item(file: Path, **more: Any) -> dict[str, Any]:  # noqa: ANN401  any setting
    return {"name": "features", "model": NAME, "weights": str(file)} | more


def built(chosen: str | dict[str, Any], eval_set: EvalSet = EVAL_SET) -> FeatureScores:
    found = build_metrics([chosen], eval_set)[-1]
    assert isinstance(found, FeatureScores)
    return found


def noise(seed: int, count: int = 6, size: int = 16) -> Tensor:
    return torch.randint(0, 256, (count, 3, size, size), generator=torch.Generator().manual_seed(seed)).byte()


def test_scores_of_predictions_and_of_equal_sets(weights: Path) -> None:
    metric = built(item(weights))
    assert metric.network.startswith(f"{NAME} ")
    prediction, target = (metric.features(noise(seed)).double() for seed in (0, 1))
    assert target.shape == (6, metric.width) == (6, 256)
    names = [spec.name for spec in metric.specs]
    assert {*names} == SCORES
    scores = dict(zip(names, metric.scores(prediction, target), strict=True))
    assert scores[f"frechet_{NAME}"] > 0
    assert scores[f"kernel_{NAME}_low"] < scores[f"kernel_{NAME}_high"]
    assert metric.scores(target, target.clone()) == (pytest.approx(0, abs=1e-9), 0, 0, 0)
    assert metric.scores(prediction, target) == tuple(scores.values())  # no randomness


def test_the_number_of_threads_does_not_count(weights: Path) -> None:
    metric, found = built(item(weights)), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(metric.features(noise(0, 2)))
        assert torch.get_num_threads() == threads
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_images_are_scaled_without_aliasing() -> None:
    assert torch.equal(scaled(noise(0), 16), noise(0).float() / 255)
    stripes = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    stripes[..., ::2] = 255
    assert float((scaled(stripes, 16) - 0.5).abs().max()) < 0.05
    enlarged = scaled(stripes, 160)
    assert enlarged.shape == (1, 3, 160, 160)
    assert (float(enlarged.min()), float(enlarged.max())) == (0, 1)  # bicubic overshoot is cut off


def test_training_and_evaluate_score_alike(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run(tmp_path / "run", evaluate__metrics=[item(weights)], data__test_images=8)
    first, *_, logged = folder.records()
    assert f"Kernel x1000 ({NAME}) ↓" in capsys.readouterr().out
    assert first[f"reference/target/kernel_{NAME}"] == 0 < first[f"reference/grey/frechet_{NAME}"]
    roles = {each["name"]: each["role"] for each in json.loads(folder.specs_file.read_text())["metrics"]}
    assert [roles[name] for name in sorted(SCORES)] == ["comparison", "comparison", "bound", "bound"]
    evaluate(*parse_evaluate([str(folder.path)]))
    found = json.loads((folder.path / "evaluation-synthetic.json").read_text())
    assert found["networks"] == [built(item(weights)).network]
    for name in SCORES:
        assert found["scores"][name] == pytest.approx(logged[f"score/{name}"])


TRAINED_WITH = f"features can't use {NAME}, as this network was trained with its weights"


def test_other_weights_than_the_encoder_had(weights: Path, tmp_path: Path) -> None:
    encoder = {"model__name": "timm_unet", "model__encoder": NAME, "data__image_size": 64}
    for name, source in {"file": str(weights), "random": "none"}.items():
        folder = run(tmp_path / name, **encoder, model__weights=source, train__steps=1)
        again = parse_evaluate([str(folder.path), "--evaluate.metrics", json.dumps([item(weights)])])
        if source == "none":
            evaluate(*again)
            continue
        with pytest.raises(UserError, match=TRAINED_WITH) as refused:
            evaluate(*again)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("tag", ["", ".r160_in1k"])
def test_other_weights_than_the_loss_has(
    tag: str, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CGANSettings, "pretrained", property(lambda settings: (NAME + tag,)))
    with pytest.raises(UserError, match=TRAINED_WITH):
        run(tmp_path / "run", evaluate__metrics=[item(weights)])
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    folder = run(tmp_path / "run", train__steps=3)
    with pytest.raises(UserError, match=TRAINED_WITH):
        evaluate(*parse_evaluate([str(folder.path), "--evaluate.metrics", json.dumps([item(weights)])]))


def test_another_model_is_named() -> None:
    eval_set = EvalSet(image_size=16, device=torch.device("cpu"), trained_with=frozenset({"tf_efficientnet_lite1"}))
    with pytest.raises(UserError, match=r"try \{name: features, model: resnet18\}"):
        built("features", eval_set)


@pytest.mark.parametrize("used", ["resnet18", "resnet18.tv_in1k", "gluon_resnet18_v1b"])
@pytest.mark.parametrize("model", ["resnet18.a1_in1k", "gluon_resnet18_v1b", "swsl_resnet18"])
def test_the_same_architecture_by_another_name(used: str, model: str) -> None:
    eval_set = EvalSet(image_size=16, device=torch.device("cpu"), trained_with=frozenset({used}))
    with pytest.raises(UserError, match=f"^evaluate.metrics: features can't use {model}, as this network was trained"):
        built({"name": "features", "model": model}, eval_set)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"model": "test_efficentnet"}, f"timm has no model 'test_efficentnet': did you mean {NAME}"),
        ({"model": ""}, "features.model is empty: leave it out, or try tf_efficientnet_lite1"),
        ({"weights": ""}, "features.weights is empty: leave it out, or try pretrained"),
        ({"weights": "nowhere.safetensors"}, "there is no file nowhere.safetensors"),
        ({"sha256": "0" * 64}, "has SHA-256"),
        ({"weights": "pretrained", "sha256": "0"}, "features.sha256 is that of a file"),
        ({"sha256": 5}, "sha256 of features is 5, but must be str"),
        ({"model": "test_resnet"}, "has no weights of test_resnet"),
        ({"modle": NAME}, "features has no key modle: did you mean model?"),
    ],
)
def test_mistakes_are_one_line(settings: dict[str, Any], told: str, weights: Path) -> None:
    with pytest.raises(UserError) as refused:
        built(item(weights, **settings))
    assert str(refused.value).startswith("evaluate.metrics: ")
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_without_timm(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)  # how Python notes what isn't there
    with pytest.raises(UserError, match="needs the package timm: pip install"):
        built(item(weights))


def test_the_former_metric_names_this_one(tmp_path: Path) -> None:
    chosen = "[{name: classifier, folder: x}]"
    (tmp_path / "old.yaml").write_text(f"evaluate: {{metrics: {chosen}}}\n")
    for arguments in (["--evaluate.metrics", chosen], ["--config", str(tmp_path / "old.yaml")]):
        with pytest.raises(UserError, match=r"^evaluate\.metrics: .* classifier has been removed: use features$"):
            parse(arguments)
