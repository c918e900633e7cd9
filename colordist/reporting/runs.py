"""Runs, read from their folders once."""

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
        """What is learned."""
        return str(self.settings["task"]["name"])

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return int(self.settings.get("seed", 0))

    @property
    def state(self) -> State:
        """How far the run got."""
        return self.folder.state

    @property
    def steps(self) -> int:
        """Steps to do."""
        return int(self.settings["train"]["steps"])

    @cached_property
    def specs(self) -> ScoreSpecs:
        """What its scores are."""
        return load_specs(self.folder)

    @cached_property
    def step(self) -> int:
        """Steps done, according to the log."""
        return max((int(record["step"]) for record in self.records), default=0)

    @cached_property
    def scored_step(self) -> int | None:
        """The step of its newest scores; None where there are none."""
        return next((int(record["step"]) for record in reversed(self.records) if numbers(record, SCORE)), None)

    @cached_property
    def scores(self) -> dict[str, float]:
        """Its newest scores, by the metric's name; empty where there are none."""
        return newest_scores(self.records)

    @cached_property
    def references(self) -> dict[str, dict[str, float]]:
        """Scores of the reference answers on its test images: by the reference's name, then the metric's."""
        return newest_references(self.records)

    @cached_property
    def images_per_second(self) -> float | None:
        """Median over the run; None where it wasn't logged."""
        speeds = sorted(value for record in self.records if (value := number(record, SPEED)) is not None)
        return speeds[len(speeds) // 2] if speeds else None


def load_runs(folders: Sequence[RunFolder]) -> list[Run]:
    """Read run folders. Raises UserError for what is none, and for one that is named twice."""
    paths = [folder.path.resolve() for folder in folders]
    if len(set(paths)) < len(paths):
        raise UserError("a run is named twice: name each once")
    return [Run(folder, folder.settings(), folder.records()) for folder in folders]
