"""The league's table and its plot, from results."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rivals.jobs import LIMIT

Rounds = list[dict[str, Any]]
"""Results of a part, one per round."""
WIDTH, HEIGHT, LEFT, BOTTOM = 760, 380, 60, 50
COLORS = ("#d1495b", "#30638e", "#003d5b", "#edae49", "#00798c")


@dataclass(frozen=True)
class Row:
    """A property of each rival."""

    label: str
    part: str
    value: Callable[[dict[str, Any]], float | None]
    """Of a round; None: doesn't apply."""
    digits: int = 0
    scale: float = 1.0
    more_is_better: bool = False
    is_ranked: bool = True
    note: Callable[[dict[str, Any]], str] = lambda round_: ""

    def values(self, rounds: Rounds) -> list[float]:
        """Of all rounds in which it was measured."""
        found = [self.value(each) for each in rounds if "failed" not in each]
        return [each for each in found if each is not None]

    def text(self, rounds: Rounds) -> str:
        """Median and range."""
        worked = [each for each in rounds if "failed" not in each]
        if not worked:
            return "failed"
        values = [self.scale * each for each in self.values(rounds)]
        if not values:
            return self.note(worked[0]).removeprefix(", ") or "-"
        middle = self.number(statistics.median(values))
        spread = f" ({self.number(min(values))} to {self.number(max(values))})" if len(values) > 1 else ""
        failed = len(rounds) - len(worked)
        return f"{middle}{spread}{self.note(worked[0])}" + (f", {failed} failed" if failed else "")

    def number(self, value: float) -> str:
        """A value as text; tiny differences in powers of ten."""
        if value == 0:
            return "0"
        return f"{value:.0e}" if 0 < abs(value) < 10**-self.digits / 2 else f"{value:,.{self.digits}f}"


def _lost(kind: str) -> Row:
    def note(found: dict[str, Any]) -> str:
        silent = found[kind]
        if "next_step" in silent:
            return f"goes on, next step after {silent['next_step']:.1f}"
        named = ", named" if silent["named"] else ", not named"
        return named if "seconds" in silent else f"not within {LIMIT:.0f}{named}"

    label = f"a rank is {kind}: seconds until all have ended"
    return Row(label, "lost", lambda found: found[kind].get("seconds"), digits=1, note=note)


def _stall(size: str) -> Row:
    label = f"a checkpoint takes, steps ({size})"
    return Row(label, "stall", lambda found: statistics.median(found[size]), digits=2)


def _speed(processes: str) -> Row:
    label = f"images a second, {processes} process{'es' if processes != '1' else ''}"
    return Row(label, "speed", lambda found: found[processes], more_is_better=True)


def _kill(kind: str, what: str) -> Row:
    def note(found: dict[str, Any]) -> str:
        return " ({min:.1f} to {max:.1f})".format(**found["kill_to_next_step"][kind])

    label = f"{what}: seconds to the next step"
    return Row(label, "kills", lambda found: found["kill_to_next_step"][kind]["median"], digits=1, note=note)


def _start() -> Row:
    def note(found: dict[str, Any]) -> str:
        return " ({min:.1f} to {max:.1f})".format(**found["start_seconds"])

    label = "start to the first step, seconds"
    return Row(label, "kills", lambda found: found["start_seconds"]["median"], digits=1, note=note)


def _save() -> Row:
    label = "the same in 10 kills just when it saves 136 MB"
    return Row(
        label, "save", lambda found: found["by_hand"], note=lambda found: f" ({found['while_writing']} while writing)"
    )


ROWS = (
    Row("images repeated after 10 kills", "kills", lambda found: found["repeated"]),
    Row("images lost after 10 kills", "kills", lambda found: found["lost"]),
    Row("difference of weights from the unbroken run", "kills", lambda found: found["difference"], digits=3),
    # Rounding alone, which grows with each step: a smaller one is luck.
    Row("the same, continued on one process", "elastic", lambda f: f["difference"], digits=3, is_ranked=False),
    Row(
        "unbroken, on one process and on two",
        "elastic",
        lambda f: f["unbroken_one_and_two"],
        digits=3,
        is_ranked=False,
    ),
    Row("images repeated by that", "elastic", lambda found: found["repeated"]),
    Row("images lost by that", "elastic", lambda found: found["lost"]),
    Row("times that a person had to help in 10 kills", "kills", lambda found: found["by_hand"]),
    _save(),
    Row("steps done again", "kills", lambda found: found["steps_done_again"]),
    _lost("killed"),
    _lost("stopped"),
    _start(),
    _kill("all", "all killed"),
    _kill("one", "one killed"),
    Row("useful images a second, a kill every 60 s", "goodput", lambda f: f["images_per_second"], more_is_better=True),
    _stall("small"),
    _stall("136 MB"),
    Row("bytes sent in a step, thousands", "wire", lambda found: found["bytes"], scale=1e-3),
    _speed("1"),
    _speed("2"),
    Row("lines that the user writes", "lines", lambda found: found["lines"]),
)


def table(found: dict[str, Any]) -> str:
    """Markdown: first the rows in which another is better than colordist, then the others."""
    parts = found["parts"]
    names = list(next(iter(parts.values())))
    rows = [row for row in ROWS if row.part in parts]
    behind = [row for row in rows if _is_behind(row, parts[row.part])]
    lines = [f"| | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for title, chosen in (
        ("**Another is better**", behind),
        ("**None is better**", [r for r in rows if r not in behind]),
    ):
        if chosen:
            lines.append(f"| {title} |{' |' * len(names)}")
            lines += [f"| {row.label} | {' | '.join(_cells(row, parts[row.part], names))} |" for row in chosen]
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return "\n".join([*lines, "", f"{found['hardware']}; {versions}; load {found['load']:.1f} before."])


def _best(row: Row, rounds: Rounds) -> float | None:
    """Its median, the more the better; None where it wasn't measured, or isn't ranked."""
    if not row.is_ranked:
        return None
    values = row.values(rounds)
    return (1 if row.more_is_better else -1) * statistics.median(values) if values else None


def _is_better(one: float, other: float) -> bool:
    """Whether a value is better by more than a hundredth. Both: as ``_best`` has them."""
    return one - other > 0.01 * abs(other)


def _is_behind(row: Row, part: dict[str, Rounds]) -> bool:
    ours = _best(row, part["colordist"]) if "colordist" in part else None
    others = [_best(row, rounds) for name, rounds in part.items() if name != "colordist"]
    return ours is not None and any(each is not None and _is_better(each, ours) for each in others)


def _cells(row: Row, part: dict[str, Rounds], names: list[str]) -> list[str]:
    values = {name: _best(row, part[name]) for name in names}
    best = max((value for value in values.values() if value is not None), default=None)

    def cell(name: str, value: float | None) -> str:
        text = row.text(part[name])
        is_best = best is not None and value is not None and not _is_better(best, value)
        return f"**{text}**" if is_best else text

    return [cell(name, value) for name, value in values.items()]


def plot(found: dict[str, Any]) -> str:
    """Steps over two minutes with two kills, the first round of each rival: SVG."""
    curves = {name: rounds[0]["curve"] for name, rounds in found["parts"]["goodput"].items() if "curve" in rounds[0]}
    highest = max(step for curve in curves.values() for _, step in curve)

    def point(second: float, step: float) -> str:
        x = LEFT + second / 120 * (WIDTH - LEFT - 35)
        return f"{x:.0f},{HEIGHT - BOTTOM - step / highest * (HEIGHT - BOTTOM - 20):.0f}"

    svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {} {}" font-family="sans-serif" font-size="13">'
    parts = [svg.format(WIDTH, HEIGHT), f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>']
    for second, label in ((30, "all processes killed"), (90, "one killed")):
        (x, top), (_, bottom) = point(second, highest).split(","), point(second, 0).split(",")
        parts.append(f'<line x1="{x}" y1="{top}" x2="{x}" y2="{bottom}" stroke="#999" stroke-dasharray="4"/>')
        parts.append(f'<text x="{int(x) + 5}" y="{int(bottom) - 6}" fill="#555">{label}</text>')
    for number, (name, curve) in enumerate(curves.items()):
        line = " ".join(point(second, step) for second, step in curve)
        color, y = COLORS[number % len(COLORS)], 34 + 18 * number
        parts.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts.append(f'<text x="{LEFT + 12}" y="{y}" fill="{color}">{name}: step {curve[-1][1]:,}</text>')
    for second in range(0, 121, 30):
        x, y = point(second, 0).split(",")
        parts.append(f'<text x="{x}" y="{int(y) + 20}" text-anchor="middle">{second} s</text>')
    (x, top), (right, y) = point(0, highest).split(","), point(120, 0).split(",")
    parts.append(f'<path d="M{x} {top}V{y}H{right}" fill="none" stroke="#333"/>')
    return "\n".join([*parts, f'<text x="{x}" y="14">steps</text>', "</svg>"]) + "\n"
