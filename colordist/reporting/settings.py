"""Settings that differ between runs, and the command that repeats a run."""

import dataclasses
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from colordist.config import Config, Value, flatten, learning_keys
from colordist.reporting.runs import Run

_LOCATION = {"run.dir", "resume"}
DEFAULTS = flatten(dataclasses.asdict(Config()))


@dataclass(frozen=True)
class Setting:
    """A setting that differs between runs."""

    key: str
    values: list[str]
    """One per run; a dash where a run's version didn't know the key."""
    is_identity: bool
    """It is part of a run's identity; the others are operational."""


def differences(runs: Sequence[Run]) -> list[Setting]:
    """The settings that differ between runs, but for the run folder; those of the identity first."""
    flat = [flatten(run.settings) for run in runs]
    learned = [learning_keys(run.settings) for run in runs]
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
    """The command that trains the run again, into another folder: its settings where they aren't the defaults."""
    kept = learning_keys(run.settings) | {"log.every": None, "evaluate.every": None}
    flat = flatten(run.settings)
    changed = {key: flat[key] for key in kept if key in DEFAULTS and key in flat and flat[key] != DEFAULTS[key]}
    options = [f"--{key} {shlex.quote(as_text(value))}" for key, value in changed.items()]
    return " ".join(
        ["accelerate launch -m colordist.train", *options, f"--run.dir {shlex.quote(f'{run.folder.path}-again')}"]
    )


def as_text(value: Value) -> str:
    """As the command line and YAML write it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
