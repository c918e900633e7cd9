"""Settings of version 0.1, and what has been removed since: their current names."""

from collections.abc import Mapping
from typing import Any

_RENAMED = {
    "loss.draws": "task.candidates",
    "loss.difference_weight": "task.gradient_loss_weight",
    "loss.pool_slots": "task.image_buffer_slots",
    "run.silence": "run.heartbeat_timeout",
    "run.patience": "run.stall_timeout",
    "optimizer.generator.factors": "optimizer.generator.lr_scales",
    "train.gradient_checkpointing": "train.activation_checkpointing",
    "evaluate.classifier": "evaluate.metrics, as in [features]",
    "evaluate.networks": "evaluate.metrics",
}

_REMOVED = "classifier"  # a metric, and the command that trained its network


def removed_metric(name: str) -> str | None:
    """One line for the name of a metric that has been removed; None for others."""
    return f"evaluate.metrics: the metric {name} has been removed: use features" if name == _REMOVED else None


def removed_source(name: object) -> str | None:
    """One line for the name of an image source that has been removed; None for others."""
    if name != "shards":
        return None
    return (
        "data.source: shards has been removed: name the folder that was packed (data.source folder), or save it as one "
        "dataset (data.source datasets; docs/training.md)"
    )


def removed_verb(name: str) -> str | None:
    """One line for a command that has been removed; None for others."""
    return f"the command {name} has been removed: use the metric features" if name == _REMOVED else None


def hint(key: str) -> str | None:
    """One line with the current name of a key of version 0.1; None for other keys."""
    if key == "task":
        return "task is a section since version 0.2: write task: {name: cgan}, or --task.name cgan"
    section, _, name = key.partition(".")
    new = _RENAMED.get(key) or (f"task.{name}" if section == "loss" and name else None)
    if key == "loss":
        new = "task"
    return f"{key} is a setting of version 0.1: it is {new} now" if new else None


def hint_for(settings: Mapping[str, Any]) -> str | None:
    """The same for the first key of version 0.1 in a file's settings."""
    if isinstance(settings.get("task"), str):
        return hint("task")
    if "loss" in settings and not isinstance(settings["loss"], dict):
        return hint("loss")
    for section, keys in settings.items():
        for key, value in keys.items() if isinstance(keys, dict) else ():
            nested = value if section == "optimizer" and isinstance(value, dict) else {"": None}
            for last in nested:
                if found := hint(f"{section}.{key}" + (f".{last}" if last else "")):
                    return found
    return None
