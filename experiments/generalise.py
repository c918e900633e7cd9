"""Generalisation to other images: each run's newest snapshot, scored on each of several test sets.

    python experiments/generalise.py runs/horses runs/all --data horses=folder:horses --data stl=stl10:data

A test set is NAME=SOURCE:ROOT; its whole test split is used, in all its classes, at the image size that the runs were
trained at, which has to be the same for all. One table per test set, with the scores of the baselines, the oracle and
the target on its images; the JSON holds them, too.
"""

import argparse
import dataclasses
import json
from pathlib import Path

from colordist.cli import run
from colordist.errors import UserError
from colordist.evaluate import parse
from colordist.evaluation.build_evaluator import evaluate_snapshot
from colordist.evaluation.evaluator import Evaluation
from colordist.metrics.table import beside_references
from colordist.run.folder import RunFolder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", metavar="RUN", nargs="+", help="run folders")
    parser.add_argument("--data", action="append", required=True, metavar="NAME=SOURCE:ROOT", help="a test set; repeat")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all scores")
    options = parser.parse_args()
    run(lambda: generalise(options))


def generalise(options: argparse.Namespace) -> None:
    """Score, print the tables, and write all scores."""
    require_same_size(options.runs)
    results: dict[str, dict[str, Evaluation]] = {}
    for name, source, root in map(test_set, options.data):
        found = results[name] = {folder: score(folder, source, root) for folder in options.runs}
        first, answers = found[options.runs[0]], {folder: each.scores for folder, each in found.items()}
        print(name, beside_references(first.specs, first.references, answers), sep="\n", end="\n\n", flush=True)
    if options.json:
        plain = {
            name: {folder: dataclasses.asdict(each) for folder, each in row.items()} for name, row in results.items()
        }
        options.json.write_text(json.dumps(plain, indent=2) + "\n")


def test_set(text: str) -> tuple[str, str, str]:
    """Its name, source and root. text: NAME=SOURCE:ROOT."""
    name, _, rest = text.partition("=")
    source, _, root = rest.partition(":")
    if not (name and source and root):
        raise UserError(f"--data is {text!r}, but must be NAME=SOURCE:ROOT, as in horses=folder:photos/horses")
    return name, source, root


def score(folder: str, source: str, root: str) -> Evaluation:
    """The scores of a run's newest snapshot, by the run's own metrics."""
    chosen = ["--data.source", source, "--data.root", root, "--data.classes", "all", "--data.fraction", "1"]
    _, data, config, _ = parse([folder, *chosen])
    evaluation = evaluate_snapshot(Path(folder), data, config)
    assert evaluation is not None, "one process"
    return evaluation


def require_same_size(folders: list[str]) -> None:
    """Raise UserError unless all runs have the same image size: scores of the baselines depend on it."""
    sizes = {folder: RunFolder(Path(folder)).settings()["data"]["image_size"] for folder in folders}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{folder} {size}" for folder, size in sizes.items())
        raise UserError(f"the runs were trained at several image sizes ({listed}): compare those of one size")


if __name__ == "__main__":
    main()
