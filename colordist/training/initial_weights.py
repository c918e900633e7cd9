"""Transfer: a network begins with what another one has learned, instead of at random."""

import dataclasses
import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from colordist.config import GeneratorSettings, UserError
from colordist.engine.network import Network
from colordist.run import snapshot

log = logging.getLogger(__name__)

_NAMES_SHOWN = 3


def load_initial_weights(generator: Network, model: GeneratorSettings, source: Path, *, strict: bool) -> str:
    """Give a generator and its averaged copy the weights of a snapshot. Nothing else of the other run is taken over.

    model: the generator's settings.
    source: a snapshot, or a run, for its latest one.
    strict: whether all has to fit; else the tensors of the same name and shape are taken, and the log tells of the
        others.

    Returns the SHA-256 of the snapshot's weights. Raises UserError where there is no snapshot, or where it doesn't fit.
    """
    folder = snapshot.find(source)
    found, settings = snapshot.read_weights(folder)
    own = generator.module.state_dict()
    others = _others(own, found)
    if strict and (settings != model or others):
        told = "; ".join([*_differing(settings, model), *others])
        raise UserError(
            f"train.init_from: {folder} doesn't fit ({told}): set these as there, or take what fits with "
            "train.init_strict false"
        )
    fitting = {name: tensor for name, tensor in found.items() if name in own and own[name].shape == tensor.shape}
    if not fitting:
        raise UserError(f"train.init_from: nothing in {folder} fits ({'; '.join(others)}): name another snapshot")
    for module in [generator.module] + ([generator.ema.module] if generator.ema else []):
        module.load_state_dict(fitting, strict=False)
    if others:
        told = "; ".join(others)
        log.warning("train.init_from: took %d of %d tensors from %s (%s)", len(fitting), len(own), folder, told)
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def _differing(there: GeneratorSettings, here: GeneratorSettings) -> list[str]:
    """The settings in which two networks differ."""
    pairs = [(key, value, getattr(here, key, None)) for key, value in dataclasses.asdict(there).items()]
    return [f"model.{key} is {value} there, {own} here" for key, value, own in pairs if value != own]


def _others(own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """What doesn't fit, by the reason: the first few names and how many more."""
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
