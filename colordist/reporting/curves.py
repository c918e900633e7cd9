"""How numbers went over a run, in as few points as show it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from colordist.reporting.runs import Run, number

STRETCHES = 200
MOST_POINTS = 4 * STRETCHES
"""A curve of more points is thinned: of each stretch the first, last, lowest and highest are kept."""

SPEED = "images_per_second"
_NO_LOSS = {"lr", "gradient_norm", "skipped", "accuracy", "accuracy_real", "accuracy_fake", "loss_scale", "scale"}
_NO_PHASE = {"scores", "reference", "histogram"}


@dataclass(frozen=True)
class Curve:
    """A number over a run."""

    steps: NDArray[np.int32]
    images: NDArray[np.int32]
    values: NDArray[np.float32]


def curve(run: Run, key: str) -> Curve | None:
    """A number wherever the run's records have it; None where none does."""
    batch = int(run.settings["train"]["global_batch_size"])
    found = [
        (record["step"], record.get("images", record["step"] * batch), value)
        for record in run.records
        if (value := number(record, key)) is not None
    ]
    if not found:
        return None
    steps, images, values = (np.array(column) for column in zip(*found, strict=True))
    return thin(Curve(steps.astype(np.int32), images.astype(np.int32), values.astype(np.float32)))


def thin(whole: Curve) -> Curve:
    """At most MOST_POINTS of a curve's points, which draw the same line at any width below as many pixels."""
    if len(whole.steps) <= MOST_POINTS:
        return whole
    kept: set[int] = set()
    for stretch in np.array_split(np.arange(len(whole.steps)), STRETCHES):
        values = whole.values[stretch]
        kept |= {int(stretch[place]) for place in (0, -1, int(values.argmin()), int(values.argmax()))}
    places = sorted(kept)
    return Curve(whole.steps[places], whole.images[places], whole.values[places])


def loss_keys(runs: Sequence[Run]) -> list[str]:
    """The losses that any run logged, as ``phase/loss``: by phase, in the order in which they were logged."""
    keys = dict.fromkeys(key for run in runs for record in run.records for key in record if _is_loss(key))
    phases = list(dict.fromkeys(key.split("/")[0] for key in keys))
    return sorted(keys, key=lambda key: phases.index(key.split("/")[0]))


def _is_loss(key: str) -> bool:
    phase, _, name = key.partition("/")
    return bool(name) and "/" not in name and phase not in _NO_PHASE and name not in _NO_LOSS
