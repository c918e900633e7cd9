"""Groups of runs that differ in their seed only."""

from collections.abc import Sequence
from dataclasses import dataclass

from colordist.config import Value
from colordist.reporting.runs import Run
from colordist.reporting.settings import as_text
from colordist.run.identity import changed_keys

_MAX_NAMED = 2  # settings in a name


@dataclass(frozen=True)
class Group:
    """Runs of the same settings."""

    name: str
    runs: tuple[Run, ...]

    @property
    def counted(self) -> tuple[Run, ...]:
        """One run per seed, the last evaluated one: a repeated seed is not an independent sample."""
        best: dict[int, Run] = {}
        for run in self.runs:
            if run.scores and (run.seed not in best or (run.scored_step or 0) > (best[run.seed].scored_step or 0)):
                best[run.seed] = run
        return tuple(best.values())

    def scores(self, metric: str) -> list[float]:
        """Scores by one metric, one per seed; runs without it are left out."""
        return [run.scores[metric] for run in self.counted if metric in run.scores]


def group(runs: Sequence[Run]) -> list[Group]:
    """Group runs whose learning keys differ in `seed` only, in the order given.

    Operational keys (where a run lives, how often it logs) don't count: they don't change what is learned.
    """
    members: dict[str, list[Run]] = {}
    for run in runs:
        members.setdefault(repr(sorted(_settings(run).items())), []).append(run)
    found = [tuple(each) for each in members.values()]
    return [Group(name, each) for name, each in zip(_names([each[0] for each in found]), found, strict=True)]


def run_names(groups: Sequence[Group]) -> dict[Run, str]:
    """Run names: the group's, with the seed if it has several, with the folder if a seed occurs twice."""
    names: dict[Run, str] = {}
    for each in groups:
        seeds = [run.seed for run in each.runs]
        for run in each.runs:
            name = each.name if len(each.runs) == 1 else f"{each.name}, seed {run.seed}"
            names[run] = name if seeds.count(run.seed) == 1 else f"{name} ({run.folder.path.resolve().name})"
    return names


def _settings(run: Run) -> dict[str, Value]:
    settings = {key: value for key, value in run.learned.items() if key != "seed"}
    return settings | {"images": run.images}


def _names(runs: Sequence[Run]) -> list[str]:
    """Group names: the task; if several groups share it, the settings that differ, or else the first folder.

    A task that all have isn't repeated. A default of a component that another run doesn't have is no difference.
    """
    names = []
    all_alike = len(runs) > 1 and len({run.task for run in runs}) == 1
    for run in runs:
        same_task = [other for other in runs if other.task == run.task]
        alike, mine = [_settings(other) for other in same_task], _settings(run)
        changed = {"images"}.union(*(changed_keys(other.settings) for other in same_task))
        differing = [key for key in mine if key in changed and any(other.get(key) != mine[key] for other in alike)]
        if len(alike) == 1:
            names.append(run.task)
        elif 0 < len(differing) <= _MAX_NAMED:
            names.append(", ".join([run.task] * (not all_alike) + [f"{key} {as_text(mine[key])}" for key in differing]))
        else:
            name = run.folder.path.resolve().name
            names.append(name if all_alike else f"{run.task} {name}")
    twice = {name for name in names if names.count(name) > 1}
    return [f"{run.task} {run.folder.path}" if name in twice else name for name, run in zip(names, runs, strict=True)]
