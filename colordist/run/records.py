"""The records of a run: what the keys of metrics.jsonl say, and the newest scores in them.

The first part of a key says what the number is: ``loss/NETWORK/NAME``, ``diagnostics/NETWORK/NAME``,
``optimizer/NETWORK/lr``, ``pace/NAME``, ``score/METRIC``, ``reference/ANSWER/METRIC``.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from colordist.metrics.table import Scores, beside_references
from colordist.run.folder import RunFolder
from colordist.run.score_specs import load_specs

Record = Mapping[str, Any]
References = Mapping[str, Scores]
"""Scores of the reference answers, by the reference's name."""

LOSS, SCORE, REFERENCE = "loss/", "score/", "reference/"
PACE = "pace/"
"""Prefix of what depends on the machine: all that two runs of the same config may differ in."""
SPEED = f"{PACE}images_per_second"


def number(record: Record, key: str) -> float | None:
    """A finite number in a record; None where there is none."""
    value = record.get(key)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def numbers(record: Record, prefix: str) -> dict[str, float]:
    """The finite numbers whose keys begin with a prefix, by the rest of the key."""
    found = {key.removeprefix(prefix): number(record, key) for key in record if key.startswith(prefix)}
    return {key: value for key, value in found.items() if value is not None}


def newest_scores(records: Sequence[Record]) -> dict[str, float]:
    """The newest scores, by the metric's name; empty where there are none."""
    return _newest(records, SCORE)


def newest_references(records: Sequence[Record]) -> dict[str, dict[str, float]]:
    """Scores of the reference answers on the run's test images."""
    found: dict[str, dict[str, float]] = {}
    for key, score in _newest(records, REFERENCE).items():
        reference, _, metric = key.partition("/")
        found.setdefault(reference, {})[metric] = score
    return found


def score_table(folder: RunFolder) -> str:
    """A run's newest scores between those of the reference answers, as text."""
    records = folder.records()
    answers = {str(folder.settings()["task"]["name"]): newest_scores(records)}
    return beside_references(load_specs(folder), newest_references(records), answers)


def _newest(records: Sequence[Record], prefix: str) -> dict[str, float]:
    return next((found for record in reversed(records) if (found := numbers(record, prefix))), {})
