"""Compare runs: ``python -m colordist.report RUN [RUN ...]``."""

import argparse
import logging
from collections.abc import Callable
from pathlib import Path

from colordist.cli import IMPORT_HELP, ArgumentParser, path, run
from colordist.config import TrackConfig
from colordist.console import say
from colordist.errors import UserError
from colordist.extras import needs_extra
from colordist.files.atomic import exists, replacing, require_own, require_writable, writing_to
from colordist.files.documents import typed
from colordist.files.paths import output_folder
from colordist.registry import load_modules
from colordist.run.folder import RunFolder

log = logging.getLogger(__name__)

MARK = b"colordist report"
"""Marker near the beginning of each page and picture written here."""


def main() -> None:
    """Print a table of scores and write a page to compare runs; or list runs."""
    parser = ArgumentParser(prog="colordist report", description="Compare runs by scores and by eye.")
    parser.add_argument("runs", metavar="RUN", nargs="*", type=path, help="Run folder.")
    parser.add_argument(
        "-o",
        "--output",
        type=path,
        metavar="FILE",
        help="The page to write (.html), or the samples alone (.png). Default: report.html in the first run's folder.",
    )
    parser.add_argument("--wandb", action="store_true", help="Create a report at Weights & Biases, too.")
    parser.add_argument(
        "--list",
        type=path,
        nargs="?",
        const=Path("runs"),
        metavar="FOLDER",
        help="List the runs under a folder (default: runs), newest first, and exit.",
    )
    parser.add_argument("--sync", action="store_true", help="Send lines that W&B lacks after an outage, and exit.")
    parser.add_argument("--import", dest="modules", action="append", default=[], metavar="MODULE", help=IMPORT_HELP)
    run(lambda: carry_out(parser.parse_args()))


def carry_out(options: argparse.Namespace) -> None:
    """Write a report, list runs, or send missing lines to W&B, as the options say."""
    load_modules(options.modules)
    runs = [RunFolder(path) for path in options.runs]
    if options.sync:
        sync(runs)
    elif options.list is not None:
        list_runs(options.list)
    else:
        report(runs, options.output, wandb=options.wandb)


def report(runs: list[RunFolder], output: Path | None, *, wandb: bool = False) -> None:
    """Print the scores of runs beside baselines and oracle, and write a page or a picture."""
    if not runs:
        raise UserError("no run named: name run folders, or see them with --list")
    output = output or runs[0].path / "report.html"
    if output.suffix not in (".html", ".png"):
        raise UserError(f"-o {output} is neither .html nor .png")
    require_own(output, "-o", "report", is_report)
    if exists(runs[0].config_file):  # by default the page lies in a run; ``compare`` says where there is none
        require_writable(output, "-o")

    from colordist.reporting.comparison import compare

    if output.suffix == ".html" or wandb:
        with needs_extra("report", "a report"):  # before all runs are read
            from colordist.reporting.html import page
    comparison = compare(runs)
    say(comparison.table)
    say(comparison.verdict)
    for line in comparison.unreadable:
        log.warning("not shown: %s", line)
    if output.suffix == ".png":
        from PIL.PngImagePlugin import PngInfo

        from colordist.reporting.picture import picture

        marked, drawn = PngInfo(), picture(comparison)
        marked.add_text("Software", MARK.decode())
        write(output, "picture", lambda file: drawn.save(file, "PNG", pnginfo=marked))
    else:
        text = page(comparison)
        write(output, "page", lambda file: file.write_text(text, "utf-8", "replace"))
    if wandb:
        from colordist.reporting.wandb_report import publish

        say(f"W&B report: {publish(comparison)}")


def is_report(data: bytes) -> bool:
    """Whether a file's content was written here."""
    return MARK in data[:4096]


def write(file: Path, what: str, save: Callable[[Path], object], option: str = "-o") -> None:
    """Write the file that an option names, and print its path.

    Raises UserError if it can't be written, RunError where the disk fails.
    """
    with writing_to(file, "name another file", option), output_folder(file.parent), replacing(file) as draft:
        save(draft)
    say(f"{what}: {file}")


def sync(runs: list[RunFolder]) -> None:
    """Send to W&B's server the lines that it lacks."""
    from colordist import tracking

    for each in runs:
        settings = each.settings()
        sent = tracking.sync(each.path, typed(settings["track"], TrackConfig, "track"), settings)
        say(f"{each.path}: {sent} lines sent")


def list_runs(folder: Path) -> None:
    """Print the runs under a folder."""
    from colordist.reporting.listing import find, listing

    say(listing(find(folder), folder))


if __name__ == "__main__":
    main()
