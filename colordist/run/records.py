"""Records of metrics.jsonl: their keys, and the newest scores.

Keys: ``loss/NETWORK/NAME``, ``diagnostics/NETWORK/NAME``, ``optimizer/NETWORK/lr``, ``pace/NAME``, ``score/METRIC``,
``reference/NAME/METRIC``.
"""

from collections.abc import Mapping, Sequence

from colordist.metrics.table import Scores, beside_references
from colordist.run.folder import Record, RunFolder
from colordist.run.score_specs import load_specs

References = Mapping[str, Scores]
"""Scores of the references (baselines and oracle), by name."""

LOSS, SCORE, REFERENCE = "loss/", "score/", "reference/"
PACE = "pace/"
"""Prefix of quantities that depend on the machine: only these may differ between two runs of the same config."""
_FLOAT32 = 3.4e38
SPEED = f"{PACE}images_per_second"


def number(record: Record, key: str) -> float | None:
    """A number of a record that float32 can hold, None if there is none."""
    value = record.get(key)
    return float(value) if value is not None and abs(value) < _FLOAT32 else None  # False for NaN


def numbers(record: Record, prefix: str) -> dict[str, float]:
    """The finite numbers whose keys begin with a prefix, by the rest of the key."""
    found = {key.removeprefix(prefix): number(record, key) for key in record if key.startswith(prefix)}
    return {key: value for key, value in found.items() if value is not None}


def newest_scores(records: Sequence[Record]) -> dict[str, float]:
    """The newest scores, by metric; empty if there are none."""
    return _newest(records, SCORE)


def newest_references(records: Sequence[Record]) -> dict[str, dict[str, float]]:
    """Scores of the references on the run's test images, by reference and metric."""
    found: dict[str, dict[str, float]] = {}
    for key, score in _newest(records, REFERENCE).items():
        reference, _, metric = key.partition("/")
        found.setdefault(reference, {})[metric] = score
    return found


def score_table(folder: RunFolder) -> str:
    """Format a run's newest scores beside those of the references."""
    records = folder.records()
    answers = {folder.settings()["task"]["name"]: newest_scores(records)}
    return beside_references(load_specs(folder), newest_references(records), answers)


def _newest(records: Sequence[Record], prefix: str) -> dict[str, float]:
    return next((found for record in reversed(records) if (found := numbers(record, prefix))), {})
