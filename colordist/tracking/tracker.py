"""What takes records. One is flat: ``{"step": 50, "images": 1600, "generator/l1": 0.1, ...}``.

Scores are keyed ``scores/NAME``, those of floors and ceiling ``reference/NAME/NAME``.
"""

from pathlib import Path
from typing import Protocol

Record = dict[str, float]

PACE = ("images_per_second", "waiting_for_data", "peak_memory_mb")
"""What the machine makes of a run: all that two runs of the same config may differ in."""


class Tracker(Protocol):
    """Takes records, and now and then a picture and a snapshot."""

    def log(self, record: Record) -> None:
        """Take a record."""
        ...

    def picture(self, file: Path, step: int) -> None:
        """Take a picture that lies in the run folder: rows grey, answers, truth."""
        ...

    def snapshot(self, folder: Path, step: int) -> None:
        """Take a snapshot that lies in the run folder."""
        ...

    def close(self) -> None:
        """Finish."""
        ...


class Trackers:
    """Several trackers as one."""

    def __init__(self, trackers: list[Tracker]) -> None:
        self._trackers = trackers

    def log(self, record: Record) -> None:
        """Give all of them a record."""
        for tracker in self._trackers:
            tracker.log(record)

    def picture(self, file: Path, step: int) -> None:
        """Give all of them a picture."""
        for tracker in self._trackers:
            tracker.picture(file, step)

    def snapshot(self, folder: Path, step: int) -> None:
        """Give all of them a snapshot."""
        for tracker in self._trackers:
            tracker.snapshot(folder, step)

    def close(self) -> None:
        """Close all of them."""
        for tracker in self._trackers:
            tracker.close()
