"""Score a snapshot, ``python -m colordist.evaluate RUN``, or files, ``... --answers DIR [DIR ...] --truth DIR``."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from colordist.cli import IMPORT_HELP, MODEL_HELP, STEPS_HELP, ArgumentParser, model, path, run
from colordist.cli.parser import Given, read_sections
from colordist.config import DataConfig, EvaluateConfig
from colordist.console import say
from colordist.engine import launch
from colordist.errors import UserError
from colordist.extras import needs_extra
from colordist.files.atomic import require_own, require_writable
from colordist.files.documents import Malformed, parse_plain_json
from colordist.files.paths import expanded
from colordist.ranges import in_range
from colordist.report import is_report, write
from colordist.run.folder import RunFolder

_MOST_HINTS = 1000  # per image
HINTS_HELP = "Give the network N colours of each image, at random points: for one that was trained with task.hints."


def main() -> None:
    """Parse, build, run, close."""
    run(lambda: carry_out(sys.argv[1:]))


def carry_out(arguments: Sequence[str]) -> None:
    """Evaluate a model, or judge the answers of programs, as the arguments say."""
    if {each.partition("=")[0] for each in arguments} & {"--answers", "--truth"}:
        judge(*_parser(of_model=False).parse_known_args(arguments))
    else:
        evaluate(*parse(arguments))


class Arguments(NamedTuple):
    """What is evaluated, and how: the arguments of ``evaluate``."""

    model: Path
    data: DataConfig
    """By default the run's own, as the metrics."""
    config: EvaluateConfig
    output: Path | None
    """None: no file is written."""
    solver_steps: int | None
    """None: as trained."""
    hints: int


def parse(arguments: Sequence[str]) -> Arguments:
    """Parse the arguments that evaluate a model."""
    options, others = _parser(of_model=True).parse_known_args(arguments)
    if options.json:
        raise UserError("--json goes with --answers: the scores of a model are JSON in any case, -o FILE")
    from colordist.run import snapshot

    model = snapshot.pinned(options.model)
    usual = _usual_settings(model)
    _require_images(model, usual["data"], Given.read(others).keys)
    sections = read_sections("evaluate", "", others, usual=usual, modules=options.modules)
    data, output = sections["data"], options.output
    in_range("--hints", options.hints, 0, _MOST_HINTS)
    if output is None and options.solver_steps is None and not options.hints and _are_own(data, usual["data"]):
        output = model / f"evaluation-{data.source}.json"
    return Arguments(model, data, sections["evaluate"], output, options.solver_steps, options.hints)


def _parser(*, of_model: bool) -> ArgumentParser:
    """The options. of_model: with MODEL, which would take the value of an option that is not among them."""
    parser = ArgumentParser(
        prog="colordist evaluate",
        usage="%(prog)s MODEL [-o FILE] [--data.KEY VALUE ...]\n"
        "       %(prog)s --answers DIR [DIR ...] --truth DIR [--json FILE] [-o FILE.html]",
        description="Evaluate a snapshot on the whole test split, or the files that any programs wrote, beside "
        "baselines and oracle.",
        epilog="--data.KEY VALUE evaluates a model on other images, --evaluate.metrics [NAME] by more metrics; "
        "the keys are those of `colordist train --help`.",
        allow_abbrev=False,
    )
    if of_model:
        parser.add_argument("model", metavar="MODEL", type=model, help=MODEL_HELP)
        parser.add_argument("--solver_steps", type=int, metavar="N", help=STEPS_HELP)
        parser.add_argument("--hints", type=int, default=0, metavar="N", help=HINTS_HELP)
    parser.add_argument(
        "--answers",
        metavar="DIR",
        type=path,
        nargs="+",
        action="extend",
        help="Instead of a model: folder with the answers of a program, named as their photographs. May be repeated.",
    )
    parser.add_argument("--truth", dest="photographs", metavar="DIR", type=path, help="Folder of the photographs.")
    parser.add_argument("--json", metavar="FILE", type=path, help="With --answers: write the scores as JSON.")
    parser.add_argument(
        "-o",
        "--output",
        type=path,
        metavar="FILE",
        help="Scores as JSON, by default RUN/evaluation-SOURCE.json for a run's own images. With --answers: a page "
        "(.html), by default none.",
    )
    parser.add_argument("--import", dest="modules", action="append", default=[], metavar="MODULE", help=IMPORT_HELP)
    return parser


def _usual_settings(model: Path) -> dict[str, Any]:
    """Settings of a run by section; of a snapshot by itself, the image size that it was trained at."""
    from colordist.run import snapshot

    found, run = snapshot.find(model), expanded(model)
    if found.parent == run / "snapshots":
        return RunFolder(run).settings()
    size = snapshot.image_size(found)
    return {"data": {} if size is None else {"image_size": size}}


def _require_images(model: Path, usual: dict[str, Any], keys: Sequence[str]) -> None:
    """Raise UserError if neither the model nor the command line says which images. keys: those of the latter."""
    for key, example in {"source": "folder --data.root DIR", "image_size": "256"}.items():
        if key not in usual and f"data.{key}" not in keys:
            raise UserError(f"{model} is a snapshot without data.{key} of its own: add --data.{key} {example}")


def _are_own(data: DataConfig, usual: dict[str, Any]) -> bool:
    """Whether these are the images of the model's own run."""
    return "source" in usual and all(usual.get(key, value) == value for key, value in dataclasses.asdict(data).items())


def evaluate(
    model: Path,
    data: DataConfig,
    config: EvaluateConfig,
    output: Path | None,
    solver_steps: int | None = None,
    hints: int = 0,
) -> None:
    """Evaluate, then print the scores beside baselines and oracle, and write them if there is an output file."""
    from colordist.evaluation.build_evaluator import evaluate_snapshot
    from colordist.metrics.table import beside_references

    if output is not None:
        _check_output(output, "-o", "evaluation", _is_evaluation)
    evaluation = evaluate_snapshot(model, data, config, solver_steps, hints)
    if evaluation is None:  # not rank 0
        return
    label = f"step {evaluation.step}" + (f", {solver_steps} solver steps" if solver_steps else "")
    label += f", {hints} hint{'' if hints == 1 else 's'}" if hints else ""
    say(beside_references(evaluation.specs, evaluation.references, {label: evaluation.scores}))
    images = f"{evaluation.images} image{'' if evaluation.images == 1 else 's'}"
    if output is None:
        say(f"{images}; -o FILE writes the scores")
        return
    text = json.dumps(dataclasses.asdict(evaluation), indent=2) + "\n"
    write(output, f"{images}; scores", lambda draft: draft.write_text(text, "utf-8"))


def judge(options: argparse.Namespace, others: list[str]) -> None:
    """Score the answers of programs, then print the scores and write them as the options say."""
    if not (options.answers and options.photographs):
        missing, given = ("--answers", "--truth") if options.photographs else ("--truth", "--answers")
        raise UserError(f"{given} needs {missing} DIR: a folder of answers and the folder of the photographs")
    for each in others[:1] + [each for each in others if each.startswith("--")]:
        if not each.startswith("--evaluate.metrics"):
            raise UserError(f"{each} doesn't go with --answers: of the settings only --evaluate.metrics does")
    file, output = options.json, options.output
    if output and output.suffix != ".html":
        raise UserError(f"-o {output} is no .html: name a page, and write the scores with --json FILE")
    if file and output and file.resolve() == output.resolve():
        raise UserError(f"--json and -o both name {output}: name a file for each")
    config = read_sections("evaluate", "", others, wanted=("evaluate",), modules=options.modules)["evaluate"]
    if file:
        _check_output(file, "--json", "evaluation", _is_judgement)
    if output:
        _check_output(output, "-o", "report", is_report)
        with needs_extra("report", "a page of answers"):
            from colordist.reporting.programs_page import page

    from colordist.evaluation import referee
    from colordist.reporting.programs import compare_programs

    if (found := referee.judge(options.photographs, options.answers, config)) is None:  # not rank 0
        return
    judgement, pairs = found
    programs = compare_programs(judgement)
    say(programs.table)
    verdict = programs.verdict
    say("\n".join([verdict.line, *verdict.reasons, *verdict.caveats]))
    if file:
        differences = [dataclasses.asdict(each) for each in programs.differences]
        text = json.dumps(dataclasses.asdict(judgement) | {"differences": differences}, indent=2) + "\n"
        write(file, "scores", lambda draft: draft.write_text(text, "utf-8"), "--json")
    if output:
        write(output, "page", lambda draft: draft.write_text(page(programs, pairs), "utf-8", "replace"))


def _check_output(file: Path, option: str, what: str, is_own: Callable[[bytes], bool]) -> None:
    """Raise UserError for an output file that is foreign, or that can't be written."""
    require_own(file, option, what, is_own)
    if launch.is_first():  # other machines needn't be able to write it
        require_writable(file, option)


def _is_evaluation(text: bytes) -> bool:
    """Whether a file's content is an evaluation."""
    return _has_keys(text, {"run", "step", "data", "scores", "references"})


def _is_judgement(text: bytes) -> bool:
    """Whether a file's content is a judgement."""
    return _has_keys(text, {"photographs", "answers", "scores", "references", "per_image"})


def _has_keys(text: bytes, keys: set[str]) -> bool:
    try:
        return keys <= parse_plain_json(text, dict[str, Any]).keys()
    except Malformed:
        return False


if __name__ == "__main__":
    main()
