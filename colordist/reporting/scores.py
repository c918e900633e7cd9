"""Scores of runs, beside floors and ceiling, as a table."""

from collections.abc import Callable, Mapping, Sequence

from colordist.config import UserError
from colordist.metrics import METRIC_SPECS
from colordist.metrics.baselines import REFERENCES
from colordist.metrics.table import table
from colordist.reporting.board import common_references
from colordist.reporting.names import labels
from colordist.reporting.runs import Run, load_runs
from colordist.run.folder import RunFolder

Scores = Mapping[str, float]


def score_table(folders: Sequence[RunFolder]) -> str:
    """The last scores of each run that has any, between the floors and the ceiling of their test images.

    Raises UserError where no run has scores, or runs were scored on different images.
    """
    return table_of(load_runs(folders))


def table_of(runs: Sequence[Run]) -> str:
    """``score_table`` of runs that were read already."""
    names = labels([run.folder for run in runs])
    answers = {name: run.scores for name, run in zip(names, runs, strict=True) if run.scores}
    if not answers:
        raise UserError(f"{runs[0].folder.path} holds no scores: train it first")
    return beside_references(common_references(runs), answers)


def beside_references(
    references: Mapping[str, Scores], answers: Mapping[str, Scores], form: Callable[..., str] = table
) -> str:
    """A table of answers' scores between the floors' and the ceiling's.

    references: by name; answers: by label; form: what makes a table of columns and headings.
    """
    columns = {each.label: references.get(each.name, {}) for each in REFERENCES}
    baselines = {label: scores for label, scores in columns.items() if label.startswith("floor")}
    shown = [metric for metric in METRIC_SPECS if any(metric.name in scores for scores in answers.values())]
    return form(baselines | dict(answers) | columns, shown)
