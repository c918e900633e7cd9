"""Snapshots: the averaged weights and what it takes to rebuild the network. For people; no trainer code needed."""

import dataclasses
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from colordist.config import ModelConfig, UserError
from colordist.models import build_generator
from colordist.run_folder import flush, replace_text

FORMAT = 1


def write(folder: Path, module: nn.Module, model: ModelConfig, about: dict[str, Any]) -> None:
    """Write ``model.safetensors`` and ``model.json`` into a folder, and let ``latest`` beside it point there.

    about: ``step``, and anything else worth knowing about where the weights come from; plain JSON values.
    """
    temporary = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    weights = save({name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()})
    (temporary / "model.safetensors").write_bytes(weights)
    flush(temporary / "model.safetensors")
    digest = hashlib.sha256(weights).hexdigest()
    description = {"format": FORMAT, "sha256": digest, "model": dataclasses.asdict(model), **about}
    replace_text(temporary / "model.json", json.dumps(description, indent=2) + "\n")
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
        data = (folder / "model.safetensors").read_bytes()
        # Older ones don't say it.
        if about.get("sha256") not in (None, hashlib.sha256(data).hexdigest()):
            raise ValueError("model.safetensors is not what was written")
        config = ModelConfig(**about["model"])
        module = build_generator(config)
        weights = load(data)
        module.to(next(tensor.dtype for tensor in weights.values() if tensor.is_floating_point()))
        module.load_state_dict(weights)
    except OSError as error:
        raise UserError(f"{folder} holds no snapshot: {error.filename or 'a file'} can't be read") from None
    except KeyError as error:
        raise UserError(f"the snapshot in {folder} is damaged: model.json has no {error.args[0]}") from None
    except (ValueError, TypeError, StopIteration, RuntimeError, SafetensorError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"the snapshot in {folder} is damaged: {reason}") from None
    return module.eval().requires_grad_(False), config, about


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
