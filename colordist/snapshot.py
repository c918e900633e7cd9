"""Snapshots: the averaged weights and what it takes to rebuild the network. For people; no trainer code needed."""

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from colordist.config import ModelConfig, UserError
from colordist.models import build_generator

FORMAT = 1


def write(folder: Path, module: nn.Module, model: ModelConfig, about: dict[str, Any]) -> None:
    """Write ``model.safetensors`` and ``model.json`` into a folder, and let ``latest`` beside it point there.

    about: anything worth knowing about where the weights come from; plain JSON values.
    """
    temporary = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    save_file(weights, temporary / "model.safetensors")
    description = {"format": FORMAT, "model": dataclasses.asdict(model), **about}
    (temporary / "model.json").write_text(json.dumps(description, indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    link = folder.parent / "latest.tmp"
    link.unlink(missing_ok=True)
    link.symlink_to(folder.name)
    os.replace(link, folder.parent / "latest")


def read(folder: Path) -> tuple[nn.Module, ModelConfig, dict[str, Any]]:
    """Rebuild the network of a snapshot, ready to colour: in eval mode, on the CPU, frozen.

    Returns the network, its settings, and all of model.json. Raises UserError for a folder that holds no snapshot, a
    damaged one, or one that a newer version wrote.
    """
    try:
        about: dict[str, Any] = json.loads((folder / "model.json").read_text())
        if about["format"] != FORMAT:
            raise UserError(f"{folder} has snapshot format {about['format']}, but this version reads {FORMAT}")
        config = ModelConfig(**about["model"])
        module = build_generator(config)
        weights = load_file(folder / "model.safetensors")
        module.to(next(tensor.dtype for tensor in weights.values() if tensor.is_floating_point()))
        module.load_state_dict(weights)
    except OSError as error:
        raise UserError(f"{folder} holds no snapshot: {error.filename or 'a file'} can't be read") from None
    except (ValueError, TypeError, KeyError, StopIteration, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"the snapshot in {folder} is damaged: {(str(error) or type(error).__name__).splitlines()[0]}"
        ) from None
    return module.eval().requires_grad_(False), config, about


def latest(run: Path) -> Path:
    """The newest snapshot of a run folder. Raises UserError where there is none."""
    folder = run / "snapshots" / "latest"
    if not folder.exists():
        raise UserError(f"{run} holds no snapshot yet: train it first")
    return folder
