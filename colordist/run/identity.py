"""What makes two runs the same run: the settings that decide what is learned, from which images, how and how long."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from colordist import registry
from colordist.config import Config, Value, as_dict, flatten

# Settings that may change when a run is continued, besides those that components name themselves.
OPERATIONAL = (
    *("resume", "run.", "log.", "evaluate.", "checkpoint.", "track."),
    *("train.micro_batch_size", "train.activation_checkpointing"),
    *("train.nonfinite", "train.skip_limit", "train.max_minutes"),
)


def learning_keys(settings: Mapping[str, Any]) -> dict[str, Value]:
    """The settings that make up a run's identity. settings: of ``as_dict(config)``, or a file with the same.

    A file that an older version wrote lacks the newest settings: those count as their defaults.
    """
    names = registry.Names.of(settings)
    whole = flatten(registry.defaults(names)) | flatten(settings)
    own = {f"{section}.{key}" for section, kind in registry.sections(names).items() for key in kind.operational}
    return {key: value for key, value in whole.items() if not key.startswith(OPERATIONAL) and key not in own}


def fingerprint(config: Config, listing: str = "") -> str:
    """Eight hexadecimal digits that stand for the learning keys and the images: the same command gives the same ones.

    listing: digest of the images' names and sizes, where settings don't say which they are.
    """
    return _digest(changed_keys(config) | ({"listing": listing} if listing else {}))


def identity(config: Config) -> str:
    """As ``fingerprint``, but for the number of steps: it stays the same when a run is extended."""
    return _digest({key: value for key, value in changed_keys(config).items() if key != "train.steps"})


def changed_keys(config: Config) -> dict[str, Value]:
    """The learning keys that differ from their defaults: settings that are added later change no fingerprint."""
    settings = as_dict(config)
    usual = flatten(registry.defaults(registry.Names()))
    names = registry.Names.of(settings)
    usual = flatten(registry.defaults(names)) | {key: usual.get(key) for key in registry.NAME_KEYS}
    return {key: value for key, value in learning_keys(settings).items() if value != usual.get(key)}


def _digest(keys: dict[str, Value]) -> str:
    return hashlib.blake2b(json.dumps(keys, sort_keys=True).encode(), digest_size=4).hexdigest()
