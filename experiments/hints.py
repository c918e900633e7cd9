"""What are colour hints worth? Scores of networks that are given 0 to 50 colours of each image, at random points.

    python experiments/hints.py runs/photographs/{hints-scratch-0,scratch-0} --json hints.json --picture hints.svg

A network that takes no hints (`task.hints`) is scored once. Images are those of the runs. The points of an
image are the same for all networks, and the first five of ten are those of five (`evaluate --hints`).
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from colordist.config import EvaluateConfig
from colordist.engine.runtime import Engine
from colordist.evaluate import parse
from colordist.evaluation.build_evaluator import build_evaluator
from colordist.evaluation.build_source import build_source
from colordist.evaluation.set_scores import Scores
from colordist.run import snapshot

COUNTS = (0, 1, 5, 10, 50)
SHOWN = {"psnr": "PSNR in dB (higher is better)", "ciede2000": "CIEDE2000 (lower is better)"}
COLORS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b")
WIDTH, HEIGHT, LEFT, TOP, PLOT_WIDTH, PLOT_HEIGHT = 860, 330, 60, 40, 340, 220

Curve = dict[int, Scores]
"""Scores by number of hints."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all scores")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="where to draw the curves, as SVG")
    options = parser.parse_args()
    found: dict[str, Curve] = {}
    for run in options.runs:
        found[run.name] = {}
        for count, scores in curve(run):
            found[run.name][count] = scores
            shown = "  ".join(f"{name} {scores[name]:.3f}" for name in SHOWN)
            print(f"{run.name} {count:3} hints  {shown}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    if options.picture:
        options.picture.write_text(drawn(found))


def curve(run: Path) -> Iterator[tuple[int, Scores]]:
    """Score a run's newest snapshot on its own test images."""
    trained, data = snapshot.read(snapshot.find(run)), parse([str(run)]).data
    engine = Engine("fp32")
    evaluator = build_evaluator(trained.task, build_source(data, engine), EvaluateConfig(), engine)
    trained.networks.to(engine.device, engine.dtype)
    counts = COUNTS if trained.task.settings.takes_hints else COUNTS[:1]
    for count in counts:
        yield count, replace(evaluator, hints=count).scores(trained.sample)
    engine.close()


def drawn(curves: Mapping[str, Curve]) -> str:
    """A plot for each score, as SVG; networks without hints are level lines."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12"><rect width="100%" height="100%" fill="white"/>'
    ]
    for index, (name, title) in enumerate(SHOWN.items()):
        parts += _plot(name, title, curves, LEFT + index * (PLOT_WIDTH + LEFT + 20))
    for index, name in enumerate(curves):
        x, color = LEFT + index * 190, COLORS[index % len(COLORS)]
        parts.append(f'<path d="M{x} 310h20" stroke="{color}" stroke-width="2"/>')
        parts.append(f'<text x="{x + 26}" y="314">{name}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _plot(score: str, title: str, curves: Mapping[str, Curve], left: float) -> list[str]:
    """One plot. Numbers of hints are evenly spaced."""
    values = [scores[score] for each in curves.values() for scores in each.values()]
    low, high = min(values), max(values)

    def at(index: int, value: float) -> str:
        x = left + PLOT_WIDTH * index / (len(COUNTS) - 1)
        return f"{x:.1f},{TOP + PLOT_HEIGHT * (1 - (value - low) / ((high - low) or 1)):.1f}"

    bottom = TOP + PLOT_HEIGHT
    parts = [
        f'<text x="{left}" y="{TOP - 14}" font-weight="bold">{title}</text>',
        f'<path d="M{left} {TOP}v{PLOT_HEIGHT}h{PLOT_WIDTH}" fill="none" stroke="#888"/>',
        f'<text x="{left + PLOT_WIDTH / 2}" y="{bottom + 34}" text-anchor="middle">hints</text>',
    ]
    for index, count in enumerate(COUNTS):
        x = left + PLOT_WIDTH * index / (len(COUNTS) - 1)
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{count}</text>')
    for value in (low, (low + high) / 2, high):
        y = at(0, value).split(",")[1]
        parts.append(f'<text x="{left - 6}" y="{y}" text-anchor="end" dominant-baseline="middle">{value:.1f}</text>')
    for number, each in enumerate(curves.values()):
        color = COLORS[number % len(COLORS)]
        if len(each) == 1:
            ends = [at(index, each[0][score]) for index in (0, len(COUNTS) - 1)]
            line = f'<polyline points="{" ".join(ends)}" fill="none" stroke="{color}" stroke-dasharray="5 4"/>'
        else:
            points = [at(index, each[count][score]) for index, count in enumerate(COUNTS)]
            line = f'<polyline points="{" ".join(points)}" fill="none" stroke="{color}" stroke-width="2"/>'
        parts.append(line)
    return parts


if __name__ == "__main__":
    main()
