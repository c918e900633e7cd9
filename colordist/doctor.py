"""See whether everything is there for a run, on every machine: ``python -m colordist.doctor --config FILE``."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from colordist import cli
from colordist.cli.parser import QUICKSTART, read_config
from colordist.config import UserError
from colordist.engine.preflight import Finding, Place, collect, meet, table
from colordist.run.folder import folder_for


def main() -> None:
    """Parse, look, tell; exit 1 if something is missing."""
    cli.run(examine)


def examine() -> None:
    """Look at everything, as part of one process or several."""

    def add_options(parser: Any) -> None:  # noqa: ANN401  a jsonargparse parser
        parser.add_argument("--quick", action="store_true", help="No devices, no all-reduce.")
        parser.add_argument("--json", action="store_true", help="Print JSON instead of a table.")
        parser.add_argument(
            "--dry_run", action="store_true", help="Changes nothing: here for train's arguments to fit."
        )

    description = "Check whether everything is there for a run, on every machine that takes part."
    config, file, options = read_config("doctor", description, None, add_options)
    try:
        run = folder_for(config, file.stem if file else QUICKSTART)
    except UserError:  # no images to name it by, as one of the findings says
        run = Path("runs")

    place = Place.here()
    try:
        findings, go_on = meet(place, collect(config, run, place.rank), run)
    except UserError as error:
        findings, go_on = [Finding("meeting", "failed", str(error))], False
    if go_on and not options["quick"]:
        from colordist.training.build import check_devices

        found = check_devices(config)
        findings += [Finding(name, "ok", value) for name, value in found.items()] if place.rank == 0 else []
    if findings:
        rows = [dataclasses.asdict(finding) for finding in findings]
        print(json.dumps(rows, indent=2) if options["json"] else table(findings), flush=True)
    sys.exit(0 if go_on else 1)


if __name__ == "__main__":
    main()
