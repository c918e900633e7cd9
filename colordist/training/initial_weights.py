"""Initial weights from another run's snapshot (fine-tuning)."""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from colordist.config import Config, GeneratorSettings, TaskSettings
from colordist.engine.network import Network
from colordist.errors import UserError
from colordist.files.opening import open_regular
from colordist.run import snapshot

log = logging.getLogger(__name__)

_NAMES_SHOWN = 3


@dataclass(frozen=True)
class InitialWeights:
    """Where a run's initial weights came from."""

    digest: str
    """SHA-256."""
    hub_model: str | None
    """The Hub's ``user/name@commit``; None for a folder and for a bundled model."""

    def __str__(self) -> str:
        return f"{self.digest} {self.hub_model}" if self.hub_model else self.digest


def load_initial_weights(generator: Network, config: Config, source: Path, *, strict: bool) -> str:
    """Load a snapshot's weights into a generator and its EMA copy. No other state of that run is loaded.

    config: of the run that begins.
    source: a snapshot's folder, or a run's, for its newest snapshot.
    strict: whether all settings and tensors must match; else tensors of equal name and shape are loaded, and the
        others are logged.

    Returns the SHA-256 of the snapshot's weights. Raises UserError where there is no snapshot, or it doesn't fit.
    """
    folder = snapshot.find(source)
    found, model, task = snapshot.read_weights(folder)
    own = generator.module.state_dict()
    others = _others(own, found)
    if strict and (reasons := [*_differing(model, task, config), *others]):
        raise UserError(
            f"train.init_from: {folder} doesn't fit ({'; '.join(reasons)}): set these as there, or load what fits with "
            "train.init_strict false"
        )
    fitting = {name: tensor for name, tensor in found.items() if name in own and own[name].shape == tensor.shape}
    if not fitting:
        raise UserError(f"train.init_from: nothing in {folder} fits ({'; '.join(others)}): name another snapshot")
    for module in [generator.module] + ([generator.ema.module] if generator.ema else []):
        module.load_state_dict(fitting, strict=False)
    if others:
        counts = f"{len(fitting)} of {len(own)}"
        log.warning("train.init_from: loaded %s tensors from %s (%s)", counts, folder, "; ".join(others))
    with open_regular(folder / "model.safetensors") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _network_keys(model: GeneratorSettings, task: TaskSettings) -> dict[str, Any]:
    """Settings that a network's tensors follow from, by dotted key."""
    return {f"model.{key}": value for key, value in model.portable().items()} | {"task.hints": task.takes_hints}


def _differing(model: GeneratorSettings, task: TaskSettings, config: Config) -> list[str]:
    """Settings of a network that differ from a run's, as text. Where pretrained weights came from doesn't matter."""
    theirs, own = _network_keys(model, task), _network_keys(config.model, config.task)
    return [f"{key} is {theirs[key]} there, {own.get(key)} here" for key in theirs if theirs[key] != own.get(key)]


def _others(own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """Tensors that don't match, by reason: the first few names, and how many more."""
    wrong = [name for name in own if name in found and own[name].shape != found[name].shape]
    reasons = {
        "missing": [name for name in own if name not in found],
        "unexpected": [name for name in sorted(found) if name not in own],
        "of another shape": [f"{name} {[*found[name].shape]} for {[*own[name].shape]}" for name in wrong],
    }
    return [f"{reason}: {_first(names)}" for reason, names in reasons.items() if names]


def _first(names: list[str]) -> str:
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more
