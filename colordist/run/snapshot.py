"""Snapshots: the averaged weights and what it takes to rebuild the network. For people; no trainer code needed."""

import dataclasses
import os
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from colordist.config import ModelConfig, UserError
from colordist.files import weights
from colordist.models import build_generator

FORMAT = 1


def write(folder: Path, module: nn.Module, model: ModelConfig, about: dict[str, Any], card: str | None = None) -> None:
    """Write ``model.safetensors`` and ``model.json`` into a folder, and let ``latest`` beside it point there.

    about: ``step``, and anything else worth knowing about where the weights come from; plain JSON values.
    card: the same for people, as ``README.md``.
    """
    weights.write(folder, "model", module, {"format": FORMAT, "model": dataclasses.asdict(model), **about}, card)
    link = folder.parent / "latest.tmp"
    link.unlink(missing_ok=True)
    link.symlink_to(folder.name)
    os.replace(link, folder.parent / "latest")


def read(folder: Path) -> tuple[nn.Module, ModelConfig, dict[str, Any]]:
    """Rebuild the network of a snapshot, ready to colour: in eval mode, on the CPU, frozen.

    Returns the network, its settings, and all of model.json. Raises UserError for a folder that holds no snapshot, a
    damaged one, or one that a newer version wrote.
    """
    with weights.reading(folder, "model", "snapshot"):
        tensors, about = weights.read(folder, "model", "snapshot", FORMAT)
        config = _settings(folder, about)
        module = build_generator(config)
        module.to(next(tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()))
        module.load_state_dict(tensors)
    return module.eval().requires_grad_(False), config, about


def read_weights(folder: Path) -> tuple[dict[str, Tensor], ModelConfig]:
    """A snapshot's weights by name, on the CPU, and the settings of the network that they are of.

    Raises UserError as ``read`` does.
    """
    with weights.reading(folder, "model", "snapshot"):
        tensors, about = weights.read(folder, "model", "snapshot", FORMAT)
        return tensors, _settings(folder, about)


def _settings(folder: Path, about: dict[str, Any]) -> ModelConfig:
    if about["model"].get("norm") == "batch":
        raise UserError(
            f"the snapshot in {folder} has model.norm batch, which no longer exists: use the version of colordist that "
            "wrote it, or train again with model.norm group"
        )
    return ModelConfig(**about["model"])


def step_of(folder: Path, about: dict[str, Any]) -> int:
    """The step that a snapshot is of. about: all of its model.json. Raises UserError where that doesn't say."""
    step = about.get("step")
    if not isinstance(step, int):
        raise UserError(f"the snapshot in {folder} is damaged: model.json has no step")
    return step


def latest(run: Path) -> Path:
    """The newest snapshot of a run folder. Raises UserError where there is none."""
    folder = run / "snapshots" / "latest"
    if not folder.exists():
        raise UserError(f"{run} holds no snapshot yet: train it first")
    return folder
