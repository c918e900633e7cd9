"""Runs, read and compared: what every kind of report is made of."""

from collections.abc import Sequence
from dataclasses import dataclass

from colordist.config import UserError
from colordist.reporting.board import Row, board
from colordist.reporting.groups import Group, group, run_names
from colordist.reporting.runs import Run, load_runs
from colordist.reporting.verdict import Verdict, build_verdict
from colordist.run.folder import RunFolder


@dataclass(frozen=True)
class Comparison:
    """Runs beside each other."""

    runs: list[Run]
    groups: list[Group]
    """Runs of the same settings."""
    names: dict[Run, str]
    rows: list[Row]
    """Scores of the groups, a row a metric."""
    verdict: Verdict
    notes: list[str]
    """The verdict's caveats, and what else is to be kept in mind."""

    @property
    def title(self) -> str:
        """What is compared, in a few words."""
        names = [each.name for each in self.groups]
        if len(names) <= 3:
            return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
        return f"{len(names)} settings, {len(self.runs)} runs"


def compare(folders: Sequence[RunFolder]) -> Comparison:
    """Read runs and compare them. Raises UserError for what is no run, and for runs that can't be compared."""
    told = load_runs(folders)
    groups = group(told)
    runs = [run for each in groups for run in each.runs]
    images = _images_note(runs)
    rows = board(groups)
    verdict = build_verdict(groups, rows)
    return Comparison(runs, groups, run_names(groups), rows, verdict, verdict.caveats + images)


def _images_note(runs: Sequence[Run]) -> list[str]:
    """Whether all learned from the same images. Raises UserError if they were scored on others."""
    known = [(run, digests) for run in runs if len(digests := _digests(run)) == 2]
    for run, (_, test) in known[1:]:
        first, (_, first_test) = known[0]
        if test != first_test:
            one, other = first.folder.path, run.folder.path
            raise UserError(f"{one} and {other} have different test images: they can't be compared")
    if len({train for _, (train, _) in known}) > 1:
        return ["The runs learned from different images (Settings that differ may tell which)."]
    return []


def _digests(run: Run) -> list[str]:
    """What stands for the training and the test images; empty where the run folder doesn't tell."""
    file = run.folder.path / "images"
    return file.read_text(errors="replace").split() if file.is_file() else []
