"""Score a snapshot: ``python -m colordist.evaluate MODEL [--data.source ...]``."""

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from colordist.cli import MODEL_HELP, run
from colordist.cli.parser import Given, read_sections
from colordist.config import DataConfig, EvaluateConfig, UserError
from colordist.files.atomic import replace_text, require_own
from colordist.run.folder import RunFolder


def main() -> None:
    """Parse, build, run, close."""
    run(lambda: evaluate(*parse()))


def parse(arguments: list[str] | None = None) -> tuple[Path, DataConfig, EvaluateConfig, Path | None]:
    """Parse the model, data and metrics (by default its run's own), and the output file, if there is to be one."""
    parser = argparse.ArgumentParser(
        prog="colordist evaluate",
        description="Evaluate a snapshot on the whole test split, beside baselines and oracle.",
        epilog="--data.KEY VALUE evaluates on other images, --evaluate.metrics [NAME] by more metrics; "
        "the keys are those of `colordist train --help`.",
        allow_abbrev=False,
    )
    parser.add_argument("model", metavar="MODEL", type=Path, help=MODEL_HELP)
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="Default: RUN/evaluation-SOURCE.json for a run's own images."
    )
    parser.add_argument("--import", dest="modules", action="append", default=[], metavar="MODULE")
    options, others = parser.parse_known_args(arguments)
    usual = _usual_settings(options.model)
    _require_images(options.model, usual["data"], Given.read(others).keys)
    sections = read_sections("evaluate", "", others, usual=usual, modules=options.modules)
    data, output = sections["data"], options.output
    if output is None and _are_own(data, usual["data"]):
        output = options.model / f"evaluation-{data.source}.json"
    return options.model, data, sections["evaluate"], output


def _usual_settings(model: Path) -> dict[str, Any]:
    """Settings of a run by section; of a snapshot by itself, the image size that it was trained at."""
    folder = model.expanduser()
    if folder.is_dir() and not (folder / "model.json").exists():
        return RunFolder(folder).settings()
    from colordist.run import snapshot

    size = snapshot.image_size(snapshot.find(model))
    return {"data": {} if size is None else {"image_size": size}}


def _require_images(model: Path, usual: dict[str, Any], keys: Sequence[str]) -> None:
    """Raise UserError if neither the model nor the command line says which images. keys: those of the latter."""
    for key, example in {"source": "folder --data.root DIR", "image_size": "256"}.items():
        if key not in usual and f"data.{key}" not in keys:
            raise UserError(f"{model} is a snapshot without data.{key} of its own: add --data.{key} {example}")


def _are_own(data: DataConfig, usual: dict[str, Any]) -> bool:
    """Whether these are the images of the model's own run."""
    return "source" in usual and all(usual.get(key, value) == value for key, value in dataclasses.asdict(data).items())


def evaluate(model: Path, data: DataConfig, config: EvaluateConfig, output: Path | None) -> None:
    """Evaluate, then print the scores beside baselines and oracle, and write them if there is an output file."""
    from colordist.evaluation.build_evaluator import evaluate_snapshot
    from colordist.metrics.table import beside_references

    if output is not None:
        require_own(output, "-o", "evaluation", _is_evaluation)
    evaluation = evaluate_snapshot(model, data, config)
    if evaluation is None:  # not rank 0
        return
    print(beside_references(evaluation.specs, evaluation.references, {f"step {evaluation.step}": evaluation.scores}))
    if output is None:
        print(f"{evaluation.images} images; -o FILE writes the scores")
        return
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
