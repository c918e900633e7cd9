"""See whether everything is there for a run, on every machine: ``python -m colordist.doctor --config FILE``."""

import dataclasses
import json
import sys
from pathlib import Path

from colordist import cli
from colordist.config import Config, UserError
from colordist.engine.preflight import Finding, Place, collect, meet, table
from colordist.run.folder import folder_for


def main() -> None:
    """Parse, look, tell; exit 1 if something is missing."""
    cli.run(examine)


def examine() -> None:
    """Look at everything, as part of one process or several."""
    parser = cli.new_parser("doctor", "See whether everything is there for a run, on every machine that takes part.")
    parser.add_argument("--config", action="config", help="YAML file of settings, as for train.")
    parser.add_argument("--quick", action="store_true", help="Without torch: no devices, no all-reduce.")
    parser.add_argument("--json", action="store_true", help="Print JSON instead of a table.")
    parser.add_argument("--dry_run", action="store_true", help="Changes nothing: here for train's arguments to fit.")
    parser.add_class_arguments(Config, as_group=False)
    chosen = cli.read(parser)
    quick, as_json, files, _ = (chosen.pop(name) for name in ("quick", "json", "config", "dry_run"))
    config = Config(**vars(chosen))
    run = folder_for(config, Path(str(files[-1])).stem if files else cli.QUICKSTART)

    place = Place.here()
    try:
        findings, go_on = meet(place, collect(config, run, place.rank), run)
    except UserError as error:
        findings, go_on = [Finding("meeting", "failed", str(error))], False
    if go_on and not quick:
        from colordist.training.build import check_devices

        found = check_devices(config)
        findings += [Finding(name, "ok", value) for name, value in found.items()] if place.rank == 0 else []
    if findings:
        rows = [dataclasses.asdict(finding) for finding in findings]
        print(json.dumps(rows, indent=2) if as_json else table(findings), flush=True)
    sys.exit(0 if go_on else 1)


if __name__ == "__main__":
    main()
