"""Comparison of runs: the input of all reports."""

from collections.abc import Sequence
from dataclasses import dataclass

from colordist.errors import UserError
from colordist.metrics.specs import ScoreSpecs
from colordist.metrics.table import beside_references
from colordist.reporting.groups import Group, group, run_names
from colordist.reporting.runs import Run, load_runs
from colordist.reporting.score_rows import Row, common_references, common_specs, score_rows
from colordist.reporting.verdict import Verdict, build_verdict
from colordist.run.folder import RunFolder
from colordist.run.records import References


@dataclass(frozen=True)
class Comparison:
    """Runs and how they compare."""

    runs: list[Run]
    groups: list[Group]
    """Runs of the same settings."""
    names: dict[Run, str]
    specs: ScoreSpecs
    """Specs of the scores."""
    references: References
    rows: list[Row]
    """Scores of the groups, one row per metric."""
    verdict: Verdict
    notes: list[str]
    """Caveats of the verdict, and other notes."""
    unreadable: list[str]
    """A line for each run that can't be read."""

    @property
    def title(self) -> str:
        """Names of the groups, or their number if there are many."""
        names = [each.name for each in self.groups]
        if len(names) <= 3:
            return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
        return f"{len(names)} settings, {len(self.runs)} runs"

    @property
    def table(self) -> str:
        """Format the newest scores of each run between baselines and oracle."""
        answers = {name: run.scores for run, name in self.names.items() if run.scores}
        return beside_references(self.specs, self.references, answers) if answers else "no scores yet"


def compare(folders: Sequence[RunFolder]) -> Comparison:
    """Read and compare runs. Raises UserError for a folder that is no run, and for runs that can't be compared.

    Damaged runs are left out and named, as long as there are others.
    """
    found, unreadable = load_runs(folders)
    groups = group(found)
    runs = [run for each in groups for run in each.runs]
    notes = _images_note(runs)
    specs, references = common_specs(runs), common_references(runs)
    rows = score_rows(groups, specs, references)
    verdict = build_verdict(groups, rows)
    notes = [*verdict.caveats, *notes, *(f"Not shown: {line}." for line in unreadable)]
    return Comparison(runs, groups, run_names(groups), specs, references, rows, verdict, notes, unreadable)


def _images_note(runs: Sequence[Run]) -> list[str]:
    """Note different training images. Raises UserError for different test images."""
    known = [(run, digests) for run in runs if len(digests := (run.images or "").split()) == 2]
    for run, (_, test) in known[1:]:
        first, (_, first_test) = known[0]
        if test != first_test:
            one, other = first.folder.path, run.folder.path
            raise UserError(f"{one} and {other} have different test images: they can't be compared")
    if len({train for _, (train, _) in known}) > 1:
        return ["The runs were trained on different images (see the settings that differ)."]
    return []
