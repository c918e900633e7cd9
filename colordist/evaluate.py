"""Score a run's newest snapshot: ``python -m colordist.evaluate RUN [--data.source ...]``."""

import argparse
import dataclasses
import json
from pathlib import Path

from colordist.cli import new_parser, read, run
from colordist.config import DataConfig, EvaluateConfig, UserError
from colordist.run.folder import RunFolder


def main() -> None:
    """Parse, build, run, close."""
    run(lambda: evaluate(*parse()))


def parse(arguments: list[str] | None = None) -> tuple[Path, DataConfig, EvaluateConfig, Path | None]:
    """The run, the data and the metrics (the run's own but for what is given), and where to write."""
    parser = argparse.ArgumentParser(
        prog="colordist evaluate",
        description="Score a run's newest snapshot on the whole test split, beside baselines and oracle.",
        epilog="--data.KEY VALUE scores it on other images, --evaluate.metrics [NAME] by more metrics; "
        "the keys are those of `colordist train --help`.",
        allow_abbrev=False,
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="Run folder.")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="Default: RUN/evaluation-SOURCE.json.")
    options, others = parser.parse_known_args(arguments)
    settings = new_parser("evaluate", "")
    settings.add_class_arguments(DataConfig, "data")
    settings.add_class_arguments(EvaluateConfig, "evaluate")
    own = RunFolder(options.run).settings()
    settings.set_defaults({f"{part}.{key}": own[part][key] for part in ("data", "evaluate") for key in own[part]})
    chosen = read(settings, others)
    return options.run, chosen.data, chosen.evaluate, options.output


def evaluate(folder: Path, data: DataConfig, config: EvaluateConfig, output: Path | None) -> None:
    """Print the scores beside those of the reference answers, and write them."""
    from colordist.metrics.table import beside_references
    from colordist.training.build import evaluate_snapshot

    output = output or folder / f"evaluation-{data.source}.json"
    evaluation = evaluate_snapshot(folder, data, config)
    if evaluation is None:  # not the first process
        return
    print(beside_references(evaluation.specs, evaluation.references, {f"step {evaluation.step}": evaluation.scores}))
    try:
        output.write_text(json.dumps(dataclasses.asdict(evaluation), indent=2) + "\n")
    except OSError as error:
        raise UserError(f"-o {output} can't be written: {error.strerror}") from None
    print(f"{evaluation.images} images; scores: {output}")


if __name__ == "__main__":
    main()
