"""Runs, each read from its folder once."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from colordist.config import Value
from colordist.errors import RunError, UserError
from colordist.metrics.specs import ScoreSpecs
from colordist.run.folder import Record, RunFolder, State
from colordist.run.identity import learning_keys
from colordist.run.records import SCORE, SPEED, newest_references, newest_scores, number, numbers
from colordist.run.score_specs import load_specs


@dataclass(frozen=True, eq=False)
class Run:
    """A run folder's settings and records."""

    folder: RunFolder
    settings: dict[str, Any]
    learned: dict[str, Value]
    """The settings of its identity, by key."""
    records: list[Record]
    specs: ScoreSpecs
    """Specs of the scores."""
    images: str | None
    """Digest of the images."""

    @property
    def task(self) -> str:
        """Name of the task."""
        name: str = self.settings["task"]["name"]
        return name

    @property
    def seed(self) -> int:
        """Seed of the run."""
        seed: int = self.settings["seed"]
        return seed

    @property
    def state(self) -> State:
        """State of the run."""
        return self.folder.state

    @property
    def steps(self) -> int:
        """Number of training steps."""
        steps: int = self.settings["train"]["steps"]
        return steps

    @cached_property
    def step(self) -> int:
        """Last logged step."""
        return max((int(record["step"]) for record in self.records), default=0)

    @cached_property
    def scored_step(self) -> int | None:
        """Step of the newest scores; None if there are none."""
        return next((int(record["step"]) for record in reversed(self.records) if numbers(record, SCORE)), None)

    @cached_property
    def scores(self) -> dict[str, float]:
        """Newest scores by metric; empty if there are none."""
        return newest_scores(self.records)

    @cached_property
    def references(self) -> dict[str, dict[str, float]]:
        """Scores of baselines and oracle on the run's test images, by reference, then by metric."""
        return newest_references(self.records)

    @cached_property
    def images_per_second(self) -> float | None:
        """Median of images per second over the run; None if it wasn't logged."""
        speeds = sorted(value for record in self.records if (value := number(record, SPEED)) is not None)
        return speeds[len(speeds) // 2] if speeds else None


def load_run(folder: RunFolder) -> Run:
    """Read a run folder. Raises UserError for one that is damaged, RunError for a failed read."""
    settings = folder.settings()
    return Run(folder, settings, learning_keys(settings), folder.records(), load_specs(folder), folder.images)


def load_runs(folders: Sequence[RunFolder]) -> tuple[list[Run], list[str]]:
    """Read run folders; a line for each that can't be read.

    Raises UserError for a folder that is no run, or is given twice, and where none can be read.
    """
    paths = [folder.path.resolve() for folder in folders]
    if len(set(paths)) < len(paths):
        raise UserError("a run is named twice: name each once")
    runs, failures = [], []
    for folder in folders:
        try:
            runs.append(load_run(folder))
        except (UserError, RunError) as error:
            if folder.state == "new" or len(folders) == 1:
                raise
            failures.append(error)
    lines = [f"{error}" for error in failures]
    if not runs:
        raise type(failures[0])("; ".join(lines))
    return runs, lines
