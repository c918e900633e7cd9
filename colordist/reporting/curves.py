"""Curves of logged numbers, downsampled to the number of points that a chart can show."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from colordist.reporting.runs import Run
from colordist.run.folder import Record
from colordist.run.records import LOSS, number

MOST_LOSSES = 60
"""Further ones aren't drawn: each chart takes a tenth of a second."""
STRETCHES = 200
MOST_POINTS = 4 * STRETCHES
"""Longer curves are downsampled: each section keeps its first, last, lowest and highest point."""


@dataclass(frozen=True)
class Curve:
    """A logged number over the steps of a run."""

    steps: NDArray[np.float64]
    images: NDArray[np.float64]
    values: NDArray[np.float32]


def curve(run: Run, key: str) -> Curve | None:
    """Curve of a record key; None if no record has it."""
    batch: int = run.settings["train"]["global_batch_size"]
    found = [
        (step := int(record["step"]), _images(record, step * batch), value)
        for record in run.records
        if (value := number(record, key)) is not None
    ]
    if not found:
        return None
    steps, images, values = (np.array(column, np.float64) for column in zip(*found, strict=True))
    return thin(Curve(steps, images, values.astype(np.float32)))


def _images(record: Record, usual: int) -> float:
    found = number(record, "images")
    return usual if found is None else found


def thin(whole: Curve) -> Curve:
    """Downsample a curve to MOST_POINTS, which draw the same line in any chart of fewer pixels."""
    if len(whole.steps) <= MOST_POINTS:
        return whole
    kept: set[int] = set()
    for stretch in np.array_split(np.arange(len(whole.steps)), STRETCHES):
        values = whole.values[stretch]
        kept |= {int(stretch[index]) for index in (0, -1, int(values.argmin()), int(values.argmax()))}
    indices = sorted(kept)
    return Curve(whole.steps[indices], whole.images[indices], whole.values[indices])


def loss_keys(runs: Sequence[Run]) -> list[str]:
    """Keys of all logged losses, in the order of logging."""
    keys = dict.fromkeys(key for run in runs for record in run.records for key in record)
    return [key for key in keys if key.startswith(LOSS)]


def losses(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Names of the first MOST_LOSSES logged losses, by network."""
    found: dict[str, list[str]] = {}
    for key in loss_keys(runs)[:MOST_LOSSES]:
        network, _, name = key.removeprefix(LOSS).partition("/")
        found.setdefault(network, []).append(name)
    return found
