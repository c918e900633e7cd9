"""Inception and LPIPS: the real networks where they should lie, with weights made here; and what to do without."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers import alone_on_the_cpu, tiny
from torch import Tensor

from colordist.cli.parser import Command
from colordist.errors import UserError
from colordist.metrics.inception import InceptionMetric
from colordist.metrics.lpips import MIN_SIZE, LPIPSMetric
from colordist.metrics.metric import EvalBatch, EvalSet
from colordist.metrics.optional import build_metrics
from colordist.run.folder import RunFolder
from colordist.train import train

pytest.importorskip("torch_fidelity")
pytest.importorskip("torchmetrics")
EVAL_SET = EvalSet(image_size=16, device=torch.device("cpu"))


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where torch keeps fetched weights: an empty folder; and no net."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    with alone_on_the_cpu(monkeypatch):
        monkeypatch.setattr("colordist.engine.runtime.share_cores", lambda *_: torch.set_num_threads(1))
        torch.set_num_threads(1)
        yield tmp_path / "hub" / "checkpoints"


def noise(seed: int, count: int = 3, size: int = 16) -> Tensor:
    return torch.randint(0, 256, (count, 3, size, size), generator=torch.Generator().manual_seed(seed)).byte()


def test_lpips(hub: Path, tmp_path: Path) -> None:
    from torchvision.models import alexnet

    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in alexnet().state_dict().items()}
    torch.manual_seed(0)
    weights = {
        name: torch.randn(shape) / 20 if name.startswith("features") else torch.zeros(()).expand(shape)
        for name, shape in shapes.items()
    }
    torch.save(weights, hub / "alexnet-owt-7be5be79.pth")
    (metric,) = LPIPSMetric(LPIPSMetric.Settings(), EVAL_SET).metrics
    target, prediction = noise(0), noise(1)
    assert metric.score(metric.sums(EvalBatch(target, target))) == 0
    found = metric.score(metric.sums(EvalBatch(prediction, target)))
    one_by_one = [metric.score(metric.sums(EvalBatch(prediction[[i]], target[[i]]))) for i in range(3)]
    assert found > 0
    assert found == pytest.approx(sum(one_by_one) / 3, rel=1e-4)
    small = torch.nn.functional.interpolate(target.float(), (MIN_SIZE, MIN_SIZE), mode="nearest").byte()
    assert metric.score(metric.sums(EvalBatch(small, small))) == 0  # large enough as it is

    train(Command(tiny(run__dir=str(tmp_path / "run"), evaluate__metrics=["lpips"]), Path("tiny.yaml"), False))
    records = RunFolder(tmp_path / "run").records()
    assert records[0]["reference/target/lpips"] == 0 < records[0]["reference/grey/lpips"]
    assert "score/lpips" in records[-1]


def test_inception(hub: Path) -> None:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Untrained(FeatureExtractorInceptionV3):  # type: ignore[misc]  # it has no types
        def load_state_dict(self, *_: object) -> None:
            """Keep what it was made with."""

    torch.save({}, hub / "nothing.pth")
    torch.manual_seed(0)
    untrained = Untrained("untrained", ["2048"], str(hub / "nothing.pth"))
    torch.save(untrained.state_dict(), hub / "weights-inception-2015-12-05-6726825d.pth")
    (scores,) = InceptionMetric(InceptionMetric.Settings(), EVAL_SET).metrics
    target, answers = (scores.features(noise(seed, 2)).double() for seed in (0, 1))
    assert target.shape == (2, scores.width)
    assert [spec.name for spec in scores.specs] == ["fid", "kid"]
    assert scores.scores(target, target) == pytest.approx((0, 0), abs=1e-6 * float(target.square().sum()))
    fid, kid = scores.scores(answers, target)
    assert fid > 0
    assert kid != 0


@pytest.mark.parametrize("name", ["inception", "lpips"])
def test_without_weights(name: str, hub: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as refusal:
        train(Command(tiny(run__dir=str(tmp_path / "run"), evaluate__metrics=[name]), Path("tiny.yaml"), False))
    told = str(refusal.value)
    assert told.startswith(f"evaluate.metrics: the weights of {name} can't be loaded (")
    assert "put https://" in told
    assert f"into {hub}, or leave {name} out of evaluate.metrics" in told
    assert "\n" not in told
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize(("name", "package"), [("inception", "torch_fidelity"), ("lpips", "torchmetrics")])
def test_without_the_package(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [module for module in sys.modules if module.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)  # how Python notes what isn't there
    with pytest.raises(UserError, match=rf"{name} needs the package {package}: pip install 'colordist\[metrics\]'$"):
        build_metrics([name], EVAL_SET)
