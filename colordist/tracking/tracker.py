"""Interface of trackers. Records are flat: ``{"step": 50, "images": 1600, "loss/generator/l1": 0.1, ...}``.

For their keys see ``run.records``.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from colordist.run.folder import Record


class Tracker(Protocol):
    """Tracks records, sample grids and snapshots."""

    def log(self, record: Record) -> None:
        """Log a record. Raises RunError if it can't be kept on disk yet: ``flush`` tries it again."""
        ...

    def flush(self) -> None:
        """Write out what couldn't be written before. Raises RunError if it still can't be."""
        ...

    def picture(self, file: Path, step: int) -> None:
        """Log a sample grid in the run folder: rows grey, prediction, target."""
        ...

    def snapshot(self, folder: Path, step: int) -> None:
        """Log a snapshot in the run folder."""
        ...

    def close(self) -> None:
        """Finish."""
        ...


class Trackers:
    """Several trackers as one."""

    def __init__(self, trackers: list[Tracker]) -> None:
        self._trackers = trackers

    def log(self, record: Record) -> None:
        """Pass a record on, to all of them even if one fails."""
        with ExitStack() as last_first:
            for tracker in reversed(self._trackers):
                last_first.callback(tracker.log, record)

    def flush(self) -> None:
        """Flush all of them."""
        for tracker in self._trackers:
            tracker.flush()

    def picture(self, file: Path, step: int) -> None:
        """Pass a sample grid on."""
        for tracker in self._trackers:
            tracker.picture(file, step)

    def snapshot(self, folder: Path, step: int) -> None:
        """Pass a snapshot on."""
        for tracker in self._trackers:
            tracker.snapshot(folder, step)

    def close(self) -> None:
        """Close all of them."""
        for tracker in self._trackers:
            tracker.close()
