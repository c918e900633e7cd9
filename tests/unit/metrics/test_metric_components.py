"""Metrics that evaluate.metrics names: ours and one of somebody else's, in training and in evaluate."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import alone_on_the_cpu, tiny

from colordist import registry
from colordist.cli.parser import Command
from colordist.config import EvaluateConfig
from colordist.data.sources.ambiguous import AMBIGUOUS_AB
from colordist.errors import UserError
from colordist.evaluate import evaluate, parse
from colordist.metrics.metric import EvalBatch, EvalSet, mean_over_images
from colordist.metrics.optional import build_metrics
from colordist.run.folder import RunFolder
from colordist.train import train

EVAL_SET = EvalSet(image_size=16, device=torch.device("cpu"))


class RednessMetric:
    """Mean red value above a threshold."""

    @dataclass(frozen=True, kw_only=True)
    class Settings:
        least: float = 0.0
        label: str

    def __init__(self, settings: Settings, eval_set: EvalSet) -> None:
        def per_image(eval_batch: EvalBatch) -> torch.Tensor:
            return (eval_batch.prediction[:, 0].float() - settings.least).clamp(min=0).flatten(1).mean(dim=1)

        self.metrics = [mean_over_images("redness", settings.label, "target", per_image, digits=1)]


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(registry._registered, ("metric", "redness"), RednessMetric)
    with alone_on_the_cpu(monkeypatch):
        yield


def test_another_metric_is_trained_evaluated_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = [{"name": "redness", "label": "Redness", "least": 10}]
    folder = RunFolder(tmp_path / "run")
    train(Command(tiny(run__dir=str(folder.path), evaluate__metrics=chosen), Path("tiny.yaml"), False))
    said = json.loads(folder.specs_file.read_text())
    assert said["metrics"][-1] == {
        **{"name": "redness", "label": "Redness", "better": "target"},
        **{"digits": 1, "role": "comparison"},
    }
    assert "Redness → target" in capsys.readouterr().out
    assert "| Redness → target |" in (folder.snapshots / "latest" / "README.md").read_text()
    logged = folder.records()[-1]["score/redness"]
    evaluate(*parse([str(folder.path)]))
    found = json.loads((folder.path / "evaluation-synthetic.json").read_text())
    assert found["scores"]["redness"] == pytest.approx(logged)
    evaluate(*parse([str(folder.path), "--evaluate.metrics", "[{name: redness, label: R, least: 255}]"]))
    assert json.loads((folder.path / "evaluation-synthetic.json").read_text())["scores"]["redness"] == 0


@pytest.mark.parametrize(
    ("item", "told"),
    [
        (
            "lpip",
            "evaluate.metrics: there is no 'lpip' among features, inception, lpips, redness: did you mean lpips?",
        ),
        ({"name": "redness", "lest": 1}, "evaluate.metrics: redness has no key lest: did you mean least?"),
        ({"name": "redness"}, "evaluate.metrics: redness needs label: write {name: redness, label: ...}"),
        ({"name": "redness", "label": 5}, "evaluate.metrics: label of redness is 5, but must be str"),
        ({"name": "redness", "label": "R", "least": True}, "least of redness is True, but must be float"),
        ({"name": "lpips", "net": "vgg"}, "evaluate.metrics: lpips has no key net: it has no settings"),
    ],
)
def test_mistakes_are_one_line(item: str | dict[str, Any], told: str) -> None:
    with pytest.raises(UserError) as refused:
        build_metrics([item], EVAL_SET)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_two_scores_of_one_name() -> None:
    item = {"name": "redness", "label": "R"}
    with pytest.raises(UserError, match="2 scores are named redness"):
        build_metrics([item, item], EVAL_SET)


@pytest.mark.parametrize("item", [5, {"folder": "x"}, {"name": 3}])
def test_an_item_needs_a_name(item: Any) -> None:  # noqa: ANN401
    with pytest.raises(UserError, match=r"evaluate\.metrics has .*: write a name, or"):
        EvaluateConfig(metrics=[item])


def test_ambiguous_objects_are_scored_where_the_source_has_them() -> None:
    def names(eval_set: EvalSet) -> set[str]:
        return {spec.name for each in build_metrics([], eval_set) for spec in each.specs}

    colored = EvalSet(image_size=16, device=torch.device("cpu"), ambiguous_colors=AMBIGUOUS_AB)
    assert names(colored) - names(EVAL_SET) == {"vivid", "rarest"}
