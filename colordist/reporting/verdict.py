"""Verdict on runs in a line or two; claims nothing within the spread over seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

from colordist.reporting.groups import Group
from colordist.reporting.runs import Run
from colordist.reporting.score_rows import Cell, Row

_MAX_NAMED = 3  # runs in a line


@dataclass(frozen=True)
class Verdict:
    """Plain text."""

    line: str
    """Verdict by the primary metric."""
    reasons: list[str]
    """How the other metrics compare."""
    caveats: list[str]
    """Limitations of the comparison."""

    def __str__(self) -> str:
        return " ".join([self.line, *self.reasons, *self.caveats])


def build_verdict(groups: Sequence[Group], rows: Sequence[Row]) -> Verdict:
    """Compare groups by the primary metric, then by the others but diagnostic ones and bounds."""
    caveats = _caveats(groups)
    ranked_rows = [each for each in rows if each.metric.is_compared]
    if not ranked_rows:
        return Verdict("There are no scores yet.", [], caveats)
    row = next((each for each in ranked_rows if each.metric.role == "primary"), ranked_rows[0])
    ranked = sorted(
        ((group, cell) for group, cell in zip(groups, row.cells, strict=True) if cell),
        key=lambda pair: (not pair[1].is_best, abs(pair[1].to_best.mean) if pair[1].to_best else 0.0),
    )
    if len(ranked) == 1:
        return Verdict(alone(*ranked[0], row), [], [*caveats, *_few_seeds([ranked[0][0]])])
    return Verdict(
        _compared(ranked, row), _others(groups, ranked[0][0], row, ranked_rows), [*caveats, *_few_seeds(groups)]
    )


def alone(group: Group, cell: Cell, row: Row) -> str:
    """How far the only group gets, from the better baseline to the oracle."""
    line = f"{group.name} reaches {_score(row, cell)}"
    baseline, limit = row.baseline, row.limit
    if baseline is None or limit is None or baseline == limit:
        return f"{line}."
    if cell.is_below_baseline:
        return f"{line}: no better than the baseline, {row.metric.format(baseline)}, which needs no network."
    gain = (row.cost(baseline) - row.cost(cell.mean)) / (row.cost(baseline) - row.cost(limit))
    ends = f"from the better baseline ({row.metric.format(baseline)}) to the oracle ({row.metric.format(limit)})"
    return f"{line}: {100 * gain:.0f} % of the way {ends}."


def _compared(ranked: list[tuple[Group, Cell]], row: Row) -> str:
    (best, best_cell), (second, second_cell) = ranked[:2]
    label, to_best = row.metric.label, second_cell.to_best
    if to_best is None:
        return f"{best.name} and {second.name} are equal: {_score(row, best_cell)}."
    scores = f"{row.metric.format(best_cell.mean)} against {row.metric.format(second_cell.mean)}"
    several = len(ranked) > 2
    next_best = f"{second.name}, the next best" if several else second.name
    by = f"{row.metric.format(abs(to_best.mean))}"
    if to_best.is_clear and to_best.margin is not None:
        margin = f"{by} ± {row.metric.format(to_best.margin)}"
        return f"{best.name} beats {next_best}, by {label}: {scores}, a difference of {margin}."
    if to_best.margin is not None:
        known = f"the difference, {by} ± {row.metric.format(to_best.margin)}, is within the spread over seeds"
        return f"Not decided between {best.name} and {next_best}: {label} {scores}; {known}."
    return f"So far {best.name} scores better than {next_best}: {label} {scores}. That may be chance."


def _others(groups: Sequence[Group], best: Group, headline: Row, rows: Sequence[Row]) -> list[str]:
    """Compare the best group by the primary metric with the others by all other metrics."""
    place = list(groups).index(best)
    ahead, behind, open_ = [], [], []
    for row in rows:
        mine = row.cells[place]
        others = [cell for number, cell in enumerate(row.cells) if cell and number != place]
        if row is headline or mine is None or not others:
            continue
        if mine.is_best and all(cell.to_best and cell.to_best.is_clear for cell in others):
            ahead.append(row)
        elif mine.to_best and mine.to_best.is_clear:
            behind.append(row)
        else:
            open_.append(row)
    if not ahead and not behind:
        return leads(best.name, place, rows)
    parts = [f"ahead in {_labels(ahead)}"] if ahead else []
    parts += [f"behind in {_labels(behind)}"] if behind else []
    rest = f" {len(open_)} more are undecided." if len(open_) > 1 else " One more is undecided." if open_ else ""
    return [f"By other scores, {best.name} is clearly {' and '.join(parts)}.{rest}"]


def leads(name: str, place: int, rows: Sequence[Row]) -> list[str]:
    """Count the metrics by which the mean of a group is the best, or as good as another's. place: of its cells."""
    if len(rows) < 2:
        return []
    leading = [row for row in rows if (cell := row.cells[place]) and cell.is_best]
    equal = sum(sum(cell.is_best for cell in row.cells if cell) > 1 for row in leading)
    shared = f", and ties in {equal}" if equal else ""
    return [f"{name} has the better mean in {len(leading) - equal} of {len(rows)} scores{shared}."]


def _caveats(groups: Sequence[Group]) -> list[str]:
    runs = [run for group in groups for run in group.runs]
    caveats = []
    if unfinished := [run for run in runs if run.state != "finished"]:
        which = "" if len(unfinished) > _MAX_NAMED else f": {', '.join(_progress(run) for run in unfinished)}"
        caveats.append(f"{_count(unfinished)} not finished{which}.")
    if unscored := [run for run in runs if not run.scores]:
        caveats.append(f"{_count(unscored)} without scores yet.")
    for group in groups:
        if len({run.scored_step for run in group.counted}) > 1:
            caveats.append(f"{group.name}: its runs were scored at different steps.")
        if left_out := [run for run in group.runs if run.scores and run not in group.counted]:
            folders = ", ".join(run.folder.path.name for run in left_out)
            caveats.append(
                f"{group.name}: a seed occurs twice, which is no independent sample: {folders} isn't counted."
            )
    return caveats


def _few_seeds(groups: Sequence[Group]) -> list[str]:
    counts = {group.name: len(group.counted) for group in groups if group.counted}
    single = [name for name, count in counts.items() if count == 1]
    if single:
        who = "One seed each" if len(single) == len(counts) > 1 else f"One seed of {', '.join(single)}"
        return [f"{who}: how much of this is chance isn't known. Three seeds or more would tell."]
    return []


def _score(row: Row, cell: Cell) -> str:
    text = f"{row.metric.label} {row.metric.format(cell.mean)}"
    if len(cell.scores) > 1:
        low, high = row.metric.format(min(cell.scores)), row.metric.format(max(cell.scores))
        text += f" ({len(cell.scores)} seeds: {low} to {high})"
    return text


def _labels(rows: Sequence[Row]) -> str:
    return ", ".join(row.metric.label for row in rows)


def _count(runs: Sequence[Run]) -> str:
    return "1 run is" if len(runs) == 1 else f"{len(runs)} runs are"


def _progress(run: Run) -> str:
    return f"{run.folder.path.name} at step {run.step:,} of {run.steps:,}"
