"""TensorBoard's event files of a run, read back with TensorBoard's own reader."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def _events(run: Path) -> Iterator[Any]:  # tensorboard has no types
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    # One after the other: the reader itself would leave out what a later file repeats.
    for file in sorted((run / "tensorboard").glob("events.out.tfevents.*")):
        accumulator = EventAccumulator(str(file), size_guidance={"scalars": 0, "images": 0}, purge_orphaned_data=False)
        yield accumulator.Reload()


def scalars(run: Path) -> list[tuple[str, int, float]]:
    """Key, step and value of all scalars."""
    return [
        (key, event.step, event.value)
        for events in _events(run)
        for key in events.Tags()["scalars"]
        for event in events.Scalars(key)
    ]


def images(run: Path) -> list[tuple[int, np.ndarray]]:
    """Step and pixels of all sample grids."""
    return [
        (event.step, np.asarray(Image.open(io.BytesIO(event.encoded_image_string))))
        for events in _events(run)
        for event in events.Images("samples")
    ]
