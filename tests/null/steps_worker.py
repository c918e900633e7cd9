"""Steps of every task on the null device, as JSON: what they hand over to it, wait for, and have left on the CPU.

python steps_worker.py FILE [CASE...]     writes {case: {precision: ...}}, as in ``measure``
"""

import importlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import null_device
import pytest
import yaml
from helpers import ROOT, alone_on_the_cpu, config_with, leaves, timm_weights
from torch import Tensor

from colordist.config import Config
from colordist.files.host_copy import to_host
from colordist.keys import flatten, nest
from colordist.registry import Names
from colordist.run.folder import RunFolder
from colordist.training.build import build_trainer
from colordist.training.trainer import Trainer

benchmark: Any = importlib.import_module("operations")  # of benchmarks/

EVERYTHING: dict[str, Any] = {
    **{"task.adversarial": "relativistic", "task.r1_weight": 3.0, "task.augment": ["translation", "cutout"]},
    **{"model.blocks": 1, "model.attention_level": 1, "optimizer.generator.clip_norm": 0.5},
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "ae": ("ae", {}),
    "cgan": ("cgan", {}),
    "cgan, accumulated": ("cgan", {"train.micro_batch_size": 32}),
    "cgan, everything": ("cgan", EVERYTHING),
    "cyclegan": ("cyclegan", {}),
    "flow": ("flow", {}),
    "variants": ("variants", {}),
    "photos_cgan": ("photos_cgan", {"data.image_size": 64, "train.global_batch_size": 4}),
}
"""A config file, and what differs from it."""
PRECISIONS = ("fp32", "bf16", "fp16")
# Painted images, and nothing between the steps.
COMMON: dict[str, Any] = {
    **{"data.source": "synthetic", "data.train_images": 64, "data.test_images": 4, "task.warmup_steps": 0},
    **{"train.steps": 10**6, "log.every": 10**6, "evaluate.every": 10**6, "checkpoint.every": 10**6},
}


def config_of(case: str, precision: str, folder: Path) -> Config:
    """The config of a case, with random weights for its pretrained networks."""
    name, own = CASES[case]
    file = flatten(yaml.safe_load((ROOT / "configs" / f"{name}.yaml").read_text()))
    settings = {key: value for key, value in file.items() if not key.startswith("data.")}
    if encoder := settings.get("model.encoder"):
        weights = timm_weights(folder / "weights.safetensors", str(encoder))
        settings |= {"model.weights": str(weights), "task.feature_weights": str(weights)}
    known = {key for key, _ in leaves(Names.of(nest(settings)))}
    settings |= {key: value for key, value in COMMON.items() if key in known or key.startswith("data.")}
    return config_with(settings | {"data.image_size": 32, "train.precision": precision} | own)


def measure(case: str, precision: str) -> dict[str, Any]:
    """``parts``: operations of a step; ``waits``: of three steps; ``on the CPU``: tensors that aren't on the device;
    ``copies of a checkpoint``: from the device.
    """
    with TemporaryDirectory() as folder, on_the_device():
        trainer = build_trainer(config_of(case, precision, Path(folder)), RunFolder(Path(folder) / "run"))
        trainer.start()
        parts = benchmark.operations(trainer, benchmark.handed_over)["parts"]
        before = null_device.counts()
        for step in range(4, 7):
            trainer.advance(step)
        after = null_device.counts()
        found = {
            "device": str(trainer.engine.device),
            "parts": parts,
            "waits": {name: after[name] - before[name] for name in null_device.WAITS if after[name] != before[name]},
            "on the CPU": [name for name, tensor in tensors(trainer) if not tensor.is_cuda],
        }
        state = trainer.engine.state_dict()
        before = null_device.counts()
        to_host(state)
        found["copies of a checkpoint"] = (null_device.counts() - before)["copy_to_host"]
        trainer.close()
        return found


@contextmanager
def on_the_device() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch, alone_on_the_cpu(patch):
        patch.setattr("colordist.engine.runtime.device_type", lambda: "cuda")
        yield


def tensors(trainer: Trainer) -> Iterator[tuple[str, Tensor]]:
    """All that training reads and changes, with a name."""
    for name, network in trainer.engine.networks.items():
        modules = {"module": network.module} | ({"ema": network.ema.module} if network.ema else {})
        for kind, module in modules.items():
            for path, tensor in module.state_dict().items():
                yield f"{name}.{kind}.{path}", tensor
        for state in network.optimizer.state.values():
            yield from ((f"{name}.optimizer.{key}", value) for key, value in state.items())
    for name, module in trainer.task.frozen.items():
        yield from ((f"{name}.{path}", tensor) for path, tensor in module.state_dict().items())
    yield from trainer.task.state.items()
    yield from vars(trainer.loader.micro_batches(0)[0]).items()
    yield "test images", trainer.evaluator.target


def main(file: Path, *cases: str) -> None:
    found = {case: {precision: measure(case, precision) for precision in PRECISIONS} for case in cases or CASES}
    file.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
