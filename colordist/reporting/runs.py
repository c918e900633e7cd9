"""What a run folder tells, read once."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from colordist.config import UserError
from colordist.run.folder import RunFolder, State

Record = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Run:
    """A run folder's settings and records."""

    folder: RunFolder
    settings: dict[str, Any]
    records: list[Record]

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
        """How many steps it shall do."""
        return int(self.settings["train"]["steps"])

    @cached_property
    def step(self) -> int:
        """How many steps it did, as far as is written down."""
        return max((int(record["step"]) for record in self.records), default=0)

    @cached_property
    def scored_step(self) -> int | None:
        """The step of its newest scores; None where there are none."""
        return next((int(record["step"]) for record in reversed(self.records) if _numbers(record, "scores/")), None)

    @cached_property
    def scores(self) -> dict[str, float]:
        """Its newest scores, by the metrics' names; empty where there are none."""
        return self._newest("scores/")

    @cached_property
    def references(self) -> dict[str, dict[str, float]]:
        """Scores of floors, ceiling and truth on its test images: by the reference's name, then the metric's."""
        found: dict[str, dict[str, float]] = {}
        for key, score in self._newest("reference/").items():
            reference, _, metric = key.partition("/")
            found.setdefault(reference, {})[metric] = score
        return found

    @cached_property
    def images_per_second(self) -> float | None:
        """Median over the run; None where it isn't known."""
        speeds = sorted(value for record in self.records if (value := number(record, "images_per_second")) is not None)
        return speeds[len(speeds) // 2] if speeds else None

    def _newest(self, prefix: str) -> dict[str, float]:
        return next((found for record in reversed(self.records) if (found := _numbers(record, prefix))), {})


def load_runs(folders: Sequence[RunFolder]) -> list[Run]:
    """Read run folders. Raises UserError for what is none, and for one that is named twice."""
    paths = [folder.path.resolve() for folder in folders]
    if len(set(paths)) < len(paths):
        raise UserError("a run is named twice: name each once")
    return [Run(folder, folder.settings(), folder.records()) for folder in folders]


def number(record: Record, key: str) -> float | None:
    """A finite number in a record; None where there is none."""
    value = record.get(key)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _numbers(record: Record, prefix: str) -> dict[str, float]:
    found = {key.removeprefix(prefix): number(record, key) for key in record if key.startswith(prefix)}
    return {key: value for key, value in found.items() if value is not None}
