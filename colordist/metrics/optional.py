"""All metrics of a run: the standard set, those of the source, and those that ``evaluate.metrics`` adds."""

import dataclasses
import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, get_type_hints

from colordist.errors import UserError
from colordist.metrics import METRICS
from colordist.metrics.features import FeatureScores
from colordist.metrics.metric import EvalSet, Metric, MetricComponent
from colordist.metrics.vivid import rarest, vivid
from colordist.registry import component

_PLAIN: dict[Any, tuple[type, ...]] = {
    str: (str,),
    bool: (bool,),
    int: (int,),
    float: (float, int),
    str | None: (str, type(None)),
}
"""Types of values that fit a setting, by its type; the first one is named in errors."""


def build_metrics(items: Sequence[str | Mapping[str, Any]], eval_set: EvalSet) -> list[Metric | FeatureScores]:
    """Build the metrics of a test split. items: as in ``evaluate.metrics``.

    Raises UserError for an unknown name or key, settings that don't fit, and what can't be had.
    """
    colors = eval_set.ambiguous_colors
    found: list[Metric | FeatureScores] = [*METRICS, *((vivid(colors), rarest(colors)) if colors else ())]
    for item in items:
        name, given = (item, {}) if isinstance(item, str) else (item["name"], {**item})
        given.pop("name", None)
        kind = component("metric", name)
        added: MetricComponent = kind(_settings(kind.Settings, name, given), eval_set)
        found += added.metrics
    counts = Counter(spec.name for each in found for spec in each.specs)
    for name, count in counts.items():
        if count > 1:
            raise UserError(f"evaluate.metrics: {count} scores are named {name}: leave one of the metrics out")
    return found


def _settings(kind: type[Any], name: str, given: Mapping[str, Any]) -> Any:  # noqa: ANN401  the component's own
    """A component's settings. Raises UserError for keys and values that don't fit."""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for key in given:
        if key not in fields:
            nearest = difflib.get_close_matches(key, fields, n=1, cutoff=0)
            way_out = f"did you mean {nearest[0]}?" if nearest else "it has no settings"
            raise UserError(f"evaluate.metrics: {name} has no key {key}: {way_out}")
    types = get_type_hints(kind)
    for key, value in given.items():
        plain = _PLAIN.get(types[key])
        if plain and (not isinstance(value, plain) or (isinstance(value, bool) and bool not in plain)):
            raise UserError(f"evaluate.metrics: {key} of {name} is {value!r}, but must be {plain[0].__name__}")
    for key, field in fields.items():
        if key not in given and field.default is field.default_factory is dataclasses.MISSING:
            raise UserError(f"evaluate.metrics: {name} needs {key}: write {{name: {name}, {key}: ...}}")
    return kind(**given)
