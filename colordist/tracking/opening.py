"""The trackers that `track.*` asks for."""

from pathlib import Path
from typing import Any

from colordist.config import TrackConfig
from colordist.tracking.accelerate_trackers import open_tracker, require_trackers
from colordist.tracking.tracker import Tracker
from colordist.tracking.weights_and_biases import open_wandb, require_wandb


def require_tracking(config: TrackConfig) -> None:
    """Raise UserError where a package is missing, or W&B's key."""
    require_wandb(config)
    require_trackers(config)


def open_trackers(config: TrackConfig, folder: Path, about: dict[str, Any]) -> list[Tracker]:
    """Open the trackers of a run. One that fails is logged and left out.

    about: settings and environment info. Raises UserError as ``require_tracking``.
    """
    opened: list[Tracker | None] = [open_wandb(config, folder, about) if config.wandb != "off" else None]
    opened += [open_tracker(name, config, folder, about) for name in config.trackers]
    return [tracker for tracker in opened if tracker is not None]
