"""A run's identity: the settings that determine what is learned, from which images, how and for how long."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from colordist import registry
from colordist.config import Config, Value, as_dict
from colordist.keys import flatten, nest

# Settings that may change when a run is continued, besides those that components declare.
OPERATIONAL = (
    *("resume", "run.", "log.", "evaluate.", "checkpoint.", "track."),
    *("train.micro_batch_size", "train.activation_checkpointing"),
    *("train.nonfinite", "train.skip_limit", "train.max_minutes"),
)


def learning_keys(settings: Mapping[str, Any]) -> dict[str, Value]:
    """The settings of a run's identity, by dotted key. settings: nested, as of ``as_dict(config)``.

    Missing ones, as in a file that an older version wrote, count as their defaults.
    """
    names = registry.Names.of(settings)
    whole = nest(flatten(registry.defaults(names)) | flatten(settings))
    for section, kind in registry.sections(names).items():
        whole[section] = kind.without_paths(whole[section])
    return {key: value for key, value in flatten(whole).items() if not key.startswith(OPERATIONAL)}


def fingerprint(config: Config, listing: str = "") -> str:
    """Hash of the learning keys and the images, as eight hexadecimal digits.

    listing: digest of the images' names and sizes, where the settings don't identify them.
    """
    return _digest(changed_keys(as_dict(config)) | ({"listing": listing} if listing else {}))


def identity(config: Config) -> str:
    """Hash of the learning keys without the number of steps, so that a run can be extended."""
    return _digest({key: value for key, value in changed_keys(as_dict(config)).items() if key != "train.steps"})


def changed_keys(settings: Mapping[str, Any]) -> dict[str, Value]:
    """The learning keys that differ from their defaults, so that settings added later change no fingerprint.

    settings: nested, as of ``as_dict(config)``.
    """
    defaults = flatten(registry.defaults(registry.Names()))
    names = registry.Names.of(settings)
    defaults = flatten(registry.defaults(names)) | {key: defaults.get(key) for key in registry.NAME_KEYS}
    return {key: value for key, value in learning_keys(settings).items() if value != defaults.get(key)}


def _digest(keys: dict[str, Value]) -> str:
    return hashlib.blake2b(json.dumps(keys, sort_keys=True).encode(), digest_size=4).hexdigest()
