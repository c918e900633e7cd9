"""Scores of runs, beside floors and ceiling, as a table."""

import math
from collections.abc import Mapping, Sequence

from colordist.config import UserError
from colordist.metrics import METRICS
from colordist.metrics.floors import REFERENCES
from colordist.metrics.table import table
from colordist.reporting.names import labels
from colordist.run_folder import RunFolder

Scores = Mapping[str, float]


def score_table(runs: Sequence[RunFolder]) -> str:
    """The last scores of each run, between the floors and the ceiling of the first one's test images.

    Raises UserError for a folder without scores, or runs that were scored on different images.
    """
    references = _scores(runs[0], "reference")
    for run in runs[1:]:
        if not _close(_scores(run, "reference"), references):
            raise UserError(f"{runs[0].path} and {run.path} were scored on different images: they can't be compared")
    answers = {name: _scores(run, "scores") for name, run in zip(labels(runs), runs, strict=True)}
    return beside_references({each.name: _with_prefix(references, f"{each.name}/") for each in REFERENCES}, answers)


def beside_references(references: Mapping[str, Scores], answers: Mapping[str, Scores]) -> str:
    """A table of answers' scores between the floors' and the ceiling's. references: by name; answers: by label."""
    columns = {each.label: references[each.name] for each in REFERENCES}
    floors = {label: scores for label, scores in columns.items() if label.startswith("floor")}
    shown = [metric for metric in METRICS if any(metric.name in scores for scores in answers.values())]
    return table(floors | dict(answers) | columns, shown)


def _scores(run: RunFolder, kind: str) -> Scores:
    """The newest scores of a kind in metrics.jsonl."""
    for record in reversed(run.records()):
        if scores := _with_prefix(record, f"{kind}/"):
            return scores
    raise UserError(f"{run.path} holds no scores: train it first")


def _close(one: Scores, other: Scores) -> bool:
    """Whether two sets of scores are of the same images: on another device the last digits may differ."""
    return one.keys() == other.keys() and all(math.isclose(one[key], other[key], rel_tol=1e-4) for key in one)


def _with_prefix(record: Scores, prefix: str) -> Scores:
    return {key.removeprefix(prefix): value for key, value in record.items() if key.startswith(prefix)}
