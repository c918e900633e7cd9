"""Score a snapshot, ``python -m colordist.evaluate RUN``, or files, ``... --answers DIR [DIR ...] --truth DIR``."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from colordist.cli import IMPORT_HELP, run
from colordist.cli.parser import read_sections
from colordist.config import DataConfig, EvaluateConfig, UserError
from colordist.files.atomic import replace_text, require_own
from colordist.report import is_report, write
from colordist.run.folder import RunFolder


def main() -> None:
    """Parse, build, run, close."""
    run(lambda: carry_out(sys.argv[1:]))


def carry_out(arguments: Sequence[str]) -> None:
    """Evaluate a run, or judge the answers of programs, as the arguments say."""
    if {each.partition("=")[0] for each in arguments} & {"--answers", "--truth"}:
        judge(*_parser(of_run=False).parse_known_args(arguments))
    else:
        evaluate(*parse(arguments))


def parse(arguments: Sequence[str]) -> tuple[Path, DataConfig, EvaluateConfig, Path | None]:
    """Parse the run, data and metrics (by default the run's own), and the output file."""
    options, others = _parser(of_run=True).parse_known_args(arguments)
    if options.json:
        raise UserError("--json goes with --answers: the scores of a run are JSON in any case, -o FILE")
    usual = RunFolder(options.run).settings()
    sections = read_sections("evaluate", "", others, usual=usual, modules=options.modules)
    return options.run, sections["data"], sections["evaluate"], options.output


def _parser(*, of_run: bool) -> argparse.ArgumentParser:
    """The options. of_run: with RUN, which would take the value of an option that is not among them."""
    parser = argparse.ArgumentParser(
        prog="colordist evaluate",
        usage="%(prog)s RUN [-o FILE] [--data.KEY VALUE ...]\n"
        "       %(prog)s --answers DIR [DIR ...] --truth DIR [--json FILE] [-o FILE.html]",
        description="Evaluate a run's newest snapshot on the whole test split, or the files that any programs wrote, "
        "beside baselines and oracle.",
        epilog="--data.KEY VALUE evaluates a run on other images, --evaluate.metrics [NAME] by more metrics; "
        "the keys are those of `colordist train --help`.",
        allow_abbrev=False,
    )
    if of_run:
        parser.add_argument("run", metavar="RUN", type=Path, help="Run folder.")
    parser.add_argument(
        "--answers",
        metavar="DIR",
        type=Path,
        nargs="+",
        action="extend",
        help="Instead of a run: folder with the answers of a program, named as their photographs. May be repeated.",
    )
    parser.add_argument("--truth", dest="photographs", metavar="DIR", type=Path, help="Folder of the photographs.")
    parser.add_argument("--json", metavar="FILE", type=Path, help="With --answers: write the scores as JSON.")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="Scores as JSON, default: RUN/evaluation-SOURCE.json. With --answers: a page (.html), default: none.",
    )
    parser.add_argument("--import", dest="modules", action="append", default=[], metavar="MODULE", help=IMPORT_HELP)
    return parser


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


def judge(options: argparse.Namespace, others: list[str]) -> None:
    """Score the answers of programs, then print the scores and write them as the options say."""
    if not (options.answers and options.photographs):
        missing, given = ("--answers", "--truth") if options.photographs else ("--truth", "--answers")
        raise UserError(f"{given} needs {missing} DIR: a folder of answers and the folder of the photographs")
    for each in others[:1] + [each for each in others if each.startswith("--")]:
        if not each.startswith("--evaluate."):
            raise UserError(f"{each} doesn't go with --answers: of the settings only --evaluate.metrics does")
    file, output = options.json, options.output
    if output and output.suffix != ".html":
        raise UserError(f"-o {output} is no .html: name a page, and write the scores with --json FILE")
    config = read_sections("evaluate", "", others, wanted=("evaluate",), modules=options.modules)["evaluate"]
    if file:
        require_own(file, "--json", "evaluation", _is_judgement)
    if output:
        require_own(output, "-o", "report", is_report)

    from colordist.evaluation import referee
    from colordist.reporting.programs import compare_programs
    from colordist.reporting.programs_page import page

    if (found := referee.judge(options.photographs, options.answers, config)) is None:  # not rank 0
        return
    judgement, pairs = found
    programs = compare_programs(judgement)
    print(programs.table)
    verdict = programs.verdict
    print("\n".join([verdict.line, *verdict.reasons, *verdict.caveats]))
    if file:
        differences = [dataclasses.asdict(each) for each in programs.differences]
        text = json.dumps(dataclasses.asdict(judgement) | {"differences": differences}, indent=2) + "\n"
        write(file, "scores", lambda draft: draft.write_text(text), "--json")
    if output:
        write(output, "page", lambda draft: draft.write_text(page(programs, pairs)))


def _is_evaluation(text: bytes) -> bool:
    """Whether a file's content is an evaluation."""
    return _has_keys(text, {"run", "step", "data", "scores", "references"})


def _is_judgement(text: bytes) -> bool:
    """Whether a file's content is a judgement."""
    return _has_keys(text, {"photographs", "answers", "scores", "references", "per_image"})


def _has_keys(text: bytes, keys: set[str]) -> bool:
    try:
        return bool(keys <= json.loads(text).keys())
    except (ValueError, AttributeError, RecursionError):
        return False


if __name__ == "__main__":
    main()
