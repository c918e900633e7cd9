"""What runs are called beside each other."""

from collections.abc import Sequence

from colordist.config import UserError
from colordist.run.folder import RunFolder


def labels(runs: Sequence[RunFolder]) -> list[str]:
    """A name for each run: its task, with the folder's name where several runs have the same task.

    Raises UserError for a run that is named twice.
    """
    tasks = [str(run.settings()["task"]["name"]) for run in runs]
    paths = [run.path.resolve() for run in runs]
    if len(set(paths)) < len(paths):
        raise UserError("a run is named twice: name each once")
    folders = [path.name for path in paths]
    alike = len(set(zip(tasks, folders, strict=True))) < len(runs)
    names = [str(run.path) if alike else folder for run, folder in zip(runs, folders, strict=True)]
    return [task if tasks.count(task) == 1 else f"{task} {name}" for task, name in zip(tasks, names, strict=True)]
