"""Compare runs: ``python -m colordist.report RUN [RUN ...] -o PICTURE.png``."""

import argparse
from pathlib import Path

from colordist.cli import run
from colordist.config import UserError
from colordist.run_folder import RunFolder


def main() -> None:
    """Print a table of scores, and draw the same test images through every run."""
    parser = argparse.ArgumentParser(prog="colordist report", description="Compare runs by scores and by eye.")
    parser.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="Run folder.")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.png", help="Where to draw the picture.")
    options = parser.parse_args()
    run(lambda: report([RunFolder(path) for path in options.runs], options.output))


def report(runs: list[RunFolder], output: Path | None) -> None:
    """Scores of runs beside floors and ceiling; and a picture, if there is a place for it."""
    from colordist.reporting.picture import comparison
    from colordist.reporting.scores import score_table

    print(score_table(runs))
    if output is not None:
        picture = comparison(runs)
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            picture.save(output)
        except (OSError, ValueError) as error:
            raise UserError(f"-o {output} can't be written: {error}") from None
        print(f"picture: {output}")


if __name__ == "__main__":
    main()
