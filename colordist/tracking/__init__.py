"""Where numbers go: metrics.jsonl always, the terminal, Weights & Biases when asked. Only the first process has any."""

from colordist.tracking.local import JsonLines, Terminal
from colordist.tracking.tracker import PACE, Record, Tracker, Trackers
from colordist.tracking.weights_and_biases import WandB, has_key, open_wandb, require_tracking, sync

__all__ = [
    "PACE",
    "JsonLines",
    "Record",
    "Terminal",
    "Tracker",
    "Trackers",
    "WandB",
    "has_key",
    "open_wandb",
    "require_tracking",
    "sync",
]
