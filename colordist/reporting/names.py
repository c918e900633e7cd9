"""What runs are called beside each other."""

from collections.abc import Sequence

from colordist.run_folder import RunFolder


def labels(runs: Sequence[RunFolder]) -> list[str]:
    """A name for each run: its task, with the folder's name where several runs have the same task."""
    tasks = [str(run.settings()["task"]) for run in runs]
    names = [path.name or str(path) for path in (run.path.resolve() for run in runs)]
    return [task if tasks.count(task) == 1 else f"{task} {name}" for task, name in zip(tasks, names, strict=True)]
