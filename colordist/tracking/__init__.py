"""Trackers: metrics.jsonl and the terminal always, Weights & Biases and others when asked for. On rank 0 only."""

from colordist.run.folder import Record
from colordist.tracking.local import JsonLines, Terminal
from colordist.tracking.opening import open_trackers, require_tracking
from colordist.tracking.tracker import Tracker, Trackers
from colordist.tracking.weights_and_biases import WandB, has_key, open_wandb, sync

__all__ = [
    "JsonLines",
    "Record",
    "Terminal",
    "Tracker",
    "Trackers",
    "WandB",
    "has_key",
    "open_trackers",
    "open_wandb",
    "require_tracking",
    "sync",
]
