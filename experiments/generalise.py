"""How runs do on images other than their own: each run's newest snapshot, scored on each of several test sets.

    python experiments/generalise.py runs/horses runs/all --data horses=folder:horses --data stl=stl10:data

A test set is NAME=SOURCE:ROOT; its whole test split is used, in all its classes, at the size that the runs were trained
at, which has to be the same for all. One row a run, one column a test set, between the floors and the ceiling of each
set's own images. What is scored how, `python -m colordist.evaluate` says; the JSON holds all scores.
"""

import argparse
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from colordist.cli import run
from colordist.config import DataConfig, UserError
from colordist.evaluate import parse
from colordist.evaluation.evaluator import Evaluation
from colordist.metrics import METRICS
from colordist.metrics.baselines import REFERENCES
from colordist.training.build import evaluate_snapshot

Found = Mapping[str, Mapping[str, Evaluation]]
"""By run, then by test set."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Scores of several runs on several test sets.")
    parser.add_argument("runs", metavar="RUN", nargs="+", help="run folders")
    parser.add_argument("--data", action="append", required=True, metavar="NAME=SOURCE:ROOT", help="a test set; repeat")
    names = [metric.name for metric in METRICS]
    parser.add_argument("--metric", choices=names, default="ciede2000", help="of the table; default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all scores")
    options = parser.parse_args()
    run(lambda: generalise(options))


def generalise(options: argparse.Namespace) -> None:
    """Score, print the table, and write the rest."""
    found: dict[str, dict[str, Evaluation]] = {}
    for folder in options.runs:
        found[folder] = {}
        for name, data in (test_set(text, folder) for text in options.data):
            _, _, config, _ = parse([folder])
            evaluation = evaluate_snapshot(Path(folder), data, config)
            assert evaluation is not None, "one process"
            found[folder][name] = evaluation
    refuse_other_sizes(found)
    print(table(found, options.metric))
    if options.json:
        plain = {
            folder: {name: dataclasses.asdict(each) for name, each in row.items()} for folder, row in found.items()
        }
        options.json.write_text(json.dumps(plain, indent=2) + "\n")


def test_set(text: str, folder: str) -> tuple[str, DataConfig]:
    """Its name, and the settings of a run's data but for what is named. text: NAME=SOURCE:ROOT."""
    name, _, rest = text.partition("=")
    source, _, root = rest.partition(":")
    if not (name and source and root):
        raise UserError(f"--data is {text!r}, but must be NAME=SOURCE:ROOT, as in horses=folder:photos/horses")
    chosen = ["--data.source", source, "--data.root", root, "--data.classes", "all", "--data.fraction", "1"]
    return name, parse([folder, *chosen])[1]


def refuse_other_sizes(found: Found) -> None:
    """Raise UserError unless all runs are of one size: floors and ceilings would differ."""
    sizes = {folder: each.data["image_size"] for folder, row in found.items() for each in row.values()}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{folder} {size}" for folder, size in sizes.items())
        raise UserError(f"the runs were trained at several sizes ({told}): compare those of one size")


def table(found: Found, metric: str) -> str:
    """One metric's scores, a row a run, between floors and ceiling."""
    chosen, first = next(each for each in METRICS if each.name == metric), next(iter(found.values()))
    rows = {each.label: [e.references[each.name].get(metric) for e in first.values()] for each in REFERENCES}
    baselines = {label: row for label, row in rows.items() if label.startswith("floor")}
    rows = baselines | {folder: [e.scores.get(metric) for e in row.values()] for folder, row in found.items()} | rows
    lines = [[f"{chosen.label}, {chosen.better} is better", *first]]
    lines += [[label, *(_cell(score, chosen.digits) for score in row)] for label, row in rows.items()]
    return aligned(lines)


def _cell(score: float | None, digits: int) -> str:
    return "-" if score is None else f"{score:.{digits}f}"


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Cells in columns, the first to the left."""
    first, *others = (max(map(len, column)) for column in zip(*lines, strict=True))
    return "\n".join(
        "  ".join([label.ljust(first), *(cell.rjust(width) for cell, width in zip(cells, others, strict=True))])
        for label, *cells in lines
    )


if __name__ == "__main__":
    main()
