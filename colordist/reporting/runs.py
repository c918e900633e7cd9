"""Runs, each read from its folder once."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from colordist.config import UserError
from colordist.metrics.specs import ScoreSpecs
from colordist.run.folder import RunFolder, State
from colordist.run.records import SCORE, SPEED, newest_references, newest_scores, number, numbers
from colordist.run.score_specs import load_specs


@dataclass(frozen=True, eq=False)
class Run:
    """A run folder's settings and records."""

    folder: RunFolder
    settings: dict[str, Any]
    records: list[dict[str, Any]]

    @property
    def task(self) -> str:
        """Name of the task."""
        return str(self.settings["task"]["name"])

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return int(self.settings.get("seed", 0))

    @property
    def state(self) -> State:
        """State of the run."""
        return self.folder.state

    @property
    def steps(self) -> int:
        """Number of training steps."""
        return int(self.settings["train"]["steps"])

    @cached_property
    def specs(self) -> ScoreSpecs:
        """Specs of the scores."""
        return load_specs(self.folder)

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


def load_runs(folders: Sequence[RunFolder]) -> list[Run]:
    """Read run folders. Raises UserError for a folder that is no run, or is given twice."""
    paths = [folder.path.resolve() for folder in folders]
    if len(set(paths)) < len(paths):
        raise UserError("a run is named twice: name each once")
    return [Run(folder, folder.settings(), folder.records()) for folder in folders]
