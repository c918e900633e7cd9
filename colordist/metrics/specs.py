"""Specs of scores: name, label, direction, format and role. Written beside a run's scores, read by every report."""

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Annotated, Literal, Self

import msgspec

from colordist.files.documents import parse_json

Better = Literal["lower", "higher", "target"]
"""``target``: the nearer to the score of the ground truth, the better."""
MetricRole = Literal["primary", "comparison", "diagnostic", "bound"]
"""``primary``: ranks runs. ``comparison``: set beside baselines and oracle. ``diagnostic``: shown, but no verdict rests
on it. ``bound``: an end of another score's interval, shown in tables only."""
ReferenceRole = Literal["baseline", "oracle", "target"]
"""``baseline``: predictions without a network, to be beaten. ``oracle``: the best possible ones. ``target``: the ground
truth."""

Name = Annotated[str, msgspec.Meta(max_length=200)]
_MOST = 10_000  # metrics, and references


@dataclass(frozen=True)
class MetricSpec:
    """Spec of a metric, for tables and reports."""

    name: Name
    """Key in files, e.g. ``ciede2000``."""
    label: Name
    """Heading in tables, e.g. ``CIEDE2000``."""
    better: Better
    digits: Annotated[int, msgspec.Meta(ge=0, le=20)] = field(default=2, kw_only=True)
    """Decimals worth printing."""
    role: MetricRole = field(default="comparison", kw_only=True)

    @property
    def arrow(self) -> str:
        """The direction in one character."""
        return {"lower": "↓", "higher": "↑", "target": "→"}[self.better]

    @property
    def is_compared(self) -> bool:
        """Whether verdicts rest on it."""
        return self.role in ("primary", "comparison")

    @property
    def direction(self) -> str:
        """The direction in words."""
        return "best near the target" if self.better == "target" else f"{self.better} is better"

    def cost(self, score: float, target: float = math.nan) -> float:
        """A score turned so that lower is better. target: the score of the ground truth."""
        return {"lower": score, "higher": -score, "target": abs(score - target)}[self.better]

    def format(self, score: float) -> str:
        """A score with the decimals worth printing; "-" for nan."""
        return "-" if math.isnan(score) else f"{score:.{self.digits}f}"


@dataclass(frozen=True)
class ReferenceSpec:
    """Spec of a reference, for tables and reports."""

    name: Name
    """Key in files."""
    label: Name
    """Heading in tables."""
    role: ReferenceRole


@dataclass(frozen=True)
class ScoreSpecs:
    """Specs of a run's scores."""

    metrics: Annotated[tuple[MetricSpec, ...], msgspec.Meta(min_length=1, max_length=_MOST)]
    """In the order of tables."""
    references: Annotated[tuple[ReferenceSpec, ...], msgspec.Meta(max_length=_MOST)]

    @property
    def primary(self) -> MetricSpec:
        """The metric that ranks runs; the first one where none says so."""
        return next((each for each in self.metrics if each.role == "primary"), self.metrics[0])

    def of_role(self, *roles: ReferenceRole) -> list[ReferenceSpec]:
        """The references of some roles."""
        return [each for each in self.references if each.role in roles]

    def best(self, metric: MetricSpec) -> ReferenceSpec | None:
        """The reference with the best possible score: the oracle, or the target where that is to be met."""
        role: ReferenceRole = "target" if metric.better == "target" else "oracle"
        return next(iter(self.of_role(role)), None)

    def merged(self, other: Self) -> Self:
        """Merge with another run's specs; these come first."""
        metrics = {each.name: each for each in (*self.metrics, *other.metrics)}
        references = {each.name: each for each in (*self.references, *other.references)}
        return type(self)(tuple(metrics.values()), tuple(references.values()))

    def to_json(self) -> str:
        """For ``from_json``."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        """Parse the output of ``to_json``. Raises Malformed for anything else."""
        return parse_json(text, cls)


def score_specs(metrics: Iterable[MetricSpec], references: Iterable[ReferenceSpec]) -> ScoreSpecs:
    """Plain specs of metrics and references, without their computation."""
    return ScoreSpecs(
        tuple(MetricSpec(m.name, m.label, m.better, digits=m.digits, role=m.role) for m in metrics),
        tuple(ReferenceSpec(each.name, each.label, each.role) for each in references),
    )
