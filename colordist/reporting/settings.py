"""Settings that differ between runs, and the command that repeats a run."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import astuple, dataclass

from colordist import registry
from colordist.config import Value
from colordist.keys import flatten
from colordist.reporting.runs import Run

_LOCATION = {"run.dir", "resume"}


@dataclass(frozen=True)
class Setting:
    """A setting that differs between runs."""

    key: str
    values: list[str]
    """One value per run; a dash if the run's version had no such key."""
    is_identity: bool
    """Whether it is part of a run's identity; if not, it is operational."""


def differences(runs: Sequence[Run]) -> list[Setting]:
    """Find the settings that differ between runs, those of the identity first; without the run folder."""
    flat = [flatten(run.settings) for run in runs]
    learned = [run.learned for run in runs]
    keys = [key for key in dict.fromkeys(key for each in flat for key in each) if key not in _LOCATION]
    found = [
        Setting(
            key,
            [as_text(each[key]) if key in each else "-" for each in flat],
            any(key in each for each in learned),
        )
        for key in keys
        if len({repr(each.get(key)) for each in flat}) > 1
    ]
    return sorted(found, key=lambda setting: not setting.is_identity)


def command(run: Run) -> str:
    """Build the command that repeats a run in another folder, from the settings that differ from their defaults."""
    kept = run.learned | {"log.every": None, "evaluate.every": None}
    flat = flatten(run.settings)
    names = registry.Names.of(run.settings)
    usual = flatten(registry.defaults(names)) | dict(zip(registry.NAME_KEYS, astuple(registry.Names()), strict=True))
    changed = {key: flat[key] for key in kept if key in usual and key in flat and flat[key] != usual[key]}
    options = [f"--{key} {shlex.quote(as_text(value))}" for key, value in changed.items()]
    return " ".join(
        ["accelerate launch -m colordist.train", *options, f"--run.dir {shlex.quote(f'{run.folder.path}-again')}"]
    )


def as_text(value: Value) -> str:
    """Format a value as on the command line and in YAML."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
