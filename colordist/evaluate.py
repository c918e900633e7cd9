"""Score a snapshot: ``python -m colordist.evaluate MODEL [--data.source ...]``."""

import argparse
import dataclasses
import json
from pathlib import Path

from colordist.cli import run
from colordist.cli.parser import read_sections
from colordist.config import DataConfig, EvaluateConfig, UserError
from colordist.files.atomic import replace_text, require_own
from colordist.run.folder import RunFolder


def main() -> None:
    """Parse, build, run, close."""
    run(lambda: evaluate(*parse()))


def parse(arguments: list[str] | None = None) -> tuple[Path, DataConfig, EvaluateConfig, Path | None]:
    """Parse the run, data and metrics (by default the run's own), and the output file."""
    parser = argparse.ArgumentParser(
        prog="colordist evaluate",
        description="Evaluate a run's newest snapshot on the whole test split, beside baselines and oracle.",
        epilog="--data.KEY VALUE evaluates on other images, --evaluate.metrics [NAME] by more metrics; "
        "the keys are those of `colordist train --help`.",
        allow_abbrev=False,
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="Run folder.")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="Default: RUN/evaluation-SOURCE.json.")
    parser.add_argument("--import", dest="modules", action="append", default=[], metavar="MODULE")
    options, others = parser.parse_known_args(arguments)
    usual = RunFolder(options.run).settings()
    sections = read_sections("evaluate", "", others, usual=usual, modules=options.modules)
    return options.run, sections["data"], sections["evaluate"], options.output


def evaluate(folder: Path, data: DataConfig, config: EvaluateConfig, output: Path | None) -> None:
    """Evaluate, then print and write the scores beside baselines and oracle."""
    from colordist.evaluation.build_evaluator import evaluate_snapshot
    from colordist.metrics.table import beside_references

    output = output or folder / f"evaluation-{data.source}.json"
    require_own(output, "-o", "evaluation", _is_evaluation)
    evaluation = evaluate_snapshot(folder, data, config)
    if evaluation is None:  # not rank 0
        return
    print(beside_references(evaluation.specs, evaluation.references, {f"step {evaluation.step}": evaluation.scores}))
    try:
        replace_text(output, json.dumps(dataclasses.asdict(evaluation), indent=2) + "\n")
    except OSError as error:
        raise UserError(f"-o {output} can't be written: {error.strerror}") from None
    print(f"{evaluation.images} images; scores: {output}")


def _is_evaluation(text: bytes) -> bool:
    """Whether a file's content is an evaluation."""
    try:
        return bool({"run", "step", "data", "scores", "references"} <= json.loads(text).keys())
    except (ValueError, AttributeError, RecursionError):
        return False


if __name__ == "__main__":
    main()
