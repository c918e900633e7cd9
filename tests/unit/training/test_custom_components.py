"""Components as others may write them: without parts or digest, several sampled networks, noise of any shape."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import alone_on_the_cpu
from runs import run
from safetensors.torch import load_file
from torch import Tensor, nn

from colordist.config import DataConfig, GeneratorSettings
from colordist.data.batch import Batch
from colordist.data.source import ArraySplit, ImageSource, Source
from colordist.errors import UserError
from colordist.models.factory import ModelFactory
from colordist.registry import register
from colordist.run import snapshot
from colordist.tasks.base import Calls, Loss, NetworkSpec, Task


@register("model", "test_pointwise")
class Pointwise(nn.Module):
    """A generator with a size multiple of 1 and without an encoder."""

    Settings = GeneratorSettings

    def __init__(self, settings: GeneratorSettings, *, inputs: int, outputs: int) -> None:
        super().__init__()
        self.last = nn.Conv2d(inputs, outputs, 1)

    def forward(self, image: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H, W]."""
        color: Tensor = self.last(image)
        return color


@register("task", "test_pair")
class PairTask(Task):
    """Two generators, whose mean is the answer."""

    generators = sampled = ("first", "second")

    def build_sampled(self, factory: ModelFactory) -> dict[str, NetworkSpec]:
        """Both, with different weights."""
        return {name: NetworkSpec(factory.generator(offset), ema=True) for offset, name in enumerate(self.sampled)}

    def phases(self, step: int) -> tuple[str, ...]:
        """One after the other."""
        return self.sampled

    def generate(self, calls: Calls, batch: Batch) -> dict[str, Tensor]:
        """Colours by network."""
        return {name: calls[name](batch.grey) for name in self.generators}

    def loss(self, phase: str, calls: Calls, batch: Batch, color: dict[str, Tensor], step: int) -> Loss:
        """Mean squared error."""
        loss = (color[phase] - batch.target).square().mean()
        return Loss(loss, {"mse": loss})

    def sample(self, networks: Calls, grey: Tensor, noise: Tensor | None, hints: Tensor | None = None) -> Tensor:
        """The mean."""
        return (networks["first"](grey) + networks["second"](grey)) / 2


@register("task", "test_noisy")
class NoisyTask(Task):
    """Noise that has the shape of the colours, taken away in two passes."""

    def build_sampled(self, factory: ModelFactory) -> dict[str, NetworkSpec]:
        """A generator that sees grey and noise."""
        return {"generator": NetworkSpec(factory.generator(inputs=3), ema=True)}

    def noise_shape(self, image_size: int) -> tuple[int, ...]:
        """As a,b of an image."""
        return (2, image_size, image_size)

    def generate(self, calls: Calls, batch: Batch) -> Tensor:
        """From the image's only candidate."""
        color: Tensor = calls["generator"](torch.cat([batch.grey, batch.noise[:, 0]], dim=1))
        return color

    def loss(self, phase: str, calls: Calls, batch: Batch, color: Tensor, step: int) -> Loss:
        """Mean squared error."""
        loss = (color - batch.target).square().mean()
        return Loss(loss, {"mse": loss})

    def sample(self, networks: Calls, grey: Tensor, noise: Tensor | None) -> Tensor:  # type: ignore[override]
        """Two passes. As tasks were written before there were hints."""
        assert noise is not None
        grey = grey.repeat_interleave(len(noise) // len(grey), dim=0)
        for _ in range(2):
            noise = noise + networks["generator"](torch.cat([grey, noise], dim=1))
        return noise


@dataclass(frozen=True, kw_only=True)
class FewSettings(DataConfig):
    """Settings of the source ``test_few``."""

    value: int = 200
    """Brightest pixel."""


@register("source", "test_few")
class FewSource(ImageSource):
    """Images without a digest: it is computed from their pixels."""

    Settings = FewSettings

    def open(self) -> Source:
        """Noise."""
        size = self.settings.image_size
        images = np.random.default_rng(0).integers(0, self.settings.value, (12, size, size, 3), np.uint8)
        return Source("few", ArraySplit(images[4:]), ArraySplit(images[:4]))


SETTINGS = {"model__name": "test_pointwise", "data__source": "test_few", "train__steps": 2, "data__image_size": 17}


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with alone_on_the_cpu(monkeypatch):
        yield


def test_a_run_begins_with_the_first_of_two_sampled_networks(tmp_path: Path) -> None:
    pair = run(tmp_path / "pair", task__name="test_pair", **SETTINGS)
    saved = load_file(pair.snapshots / "latest" / "model.safetensors")
    assert {name.partition(".")[0] for name in saved} == {"first", "second"}
    found, *_ = snapshot.read_weights(snapshot.latest(pair.path))
    assert found.keys() == {"last.weight", "last.bias"}
    assert torch.equal(found["last.weight"], saved["first.last.weight"])
    began = run(tmp_path / "began", task__name="autoencoder", train__init_from=str(pair.path), **SETTINGS)
    first = load_file(began.snapshots / "step-000000" / "model.safetensors")
    assert torch.equal(first["generator.last.weight"], saved["first.last.weight"])


def test_images_without_a_digest_bind_the_run(tmp_path: Path) -> None:
    done = run(tmp_path / "run", task__name="test_noisy", **SETTINGS)
    assert done.is_finished(2)
    assert any("diversity" in key for record in done.records() for key in record)
    (done.path / "images").write_text("of other pixels\n")
    with pytest.raises(UserError, match="the images have changed"):
        run(done.path, task__name="test_noisy", **{**SETTINGS, "train__steps": 4})


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"train__freeze": ["encoder"]}, "train.freeze has encoder, but model.name test_pointwise has no encoder"),
        ({"train__freeze": ["decoder"]}, "train.freeze names all parts of model.name test_pointwise"),
        ({"optimizer__generator__lr_scales": {"encoder": 0.5}}, "optimizer.generator.lr_scales has encoder"),
    ],
)
def test_a_part_that_the_generator_does_not_have(settings: dict[str, object], told: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=told):
        run(tmp_path / "run", task__name="autoencoder", **SETTINGS, **settings)
    assert not (tmp_path / "run").exists()
