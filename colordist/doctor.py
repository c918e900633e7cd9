"""Run preflight checks on all machines of a run: ``python -m colordist.doctor --config FILE``."""

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

from colordist import cli
from colordist.cli.parser import QUICKSTART, read_config
from colordist.config import Config
from colordist.console import say
from colordist.engine.launch import Launch, adopt_slurm_step
from colordist.engine.preflight.exchange import exchange
from colordist.engine.preflight.facts import Facts, collect
from colordist.engine.preflight.findings import Finding, assess, failed, table
from colordist.engine.rendezvous import connect
from colordist.errors import RunError, UserError
from colordist.run.folder import folder_for


def main() -> None:
    """Parse, check, print; exit 1 if a check failed."""
    adopt_slurm_step()  # before errors are reported, by rank 0 alone
    cli.run(examine)


def examine() -> None:
    """Run all checks, in one process or as one rank of several."""

    def add_options(parser: Any) -> None:  # noqa: ANN401  a jsonargparse parser
        parser.add_argument("--quick", action="store_true", help="No devices, no all-reduce.")
        parser.add_argument("--json", action="store_true", help="Print JSON instead of a table.")
        parser.add_argument("--dry_run", action="store_true", help="No effect: accepted so that train's arguments fit.")

    description = "Run preflight checks on all machines of a run."
    config, file, options = read_config("doctor", description, None, add_options)
    try:
        run = folder_for(config, file.stem if file else QUICKSTART)
    except UserError:  # no images to derive its name from: a finding below says so
        run = Path("runs")

    launch = Launch.read()
    facts = collect(config, run, launch.rank, unavailable_weights(config))
    findings, passed = gather_findings(launch, facts, run)
    if passed and not options["quick"]:
        from colordist.training.build import check_devices

        found = check_devices(config)
        findings += [Finding(name, "ok", value) for name, value in found.items()] if launch.rank == 0 else []
    if findings:
        rows = [dataclasses.asdict(finding) for finding in findings]
        say(json.dumps(rows, indent=2) if options["json"] else table(findings))
    sys.exit(0 if passed else 1)


def gather_findings(launch: Launch, facts: Facts, run: Path) -> tuple[list[Finding], bool]:
    """The findings (rank 0 only), and whether no check failed. A rendezvous that fails is a finding of every rank."""
    try:
        if launch.world_size > 1:
            return exchange(connect(launch), launch, facts, run)
        if {"MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
            connect(launch)  # only to see whether the port is free
    except UserError as error:
        return [Finding("rendezvous", "failed", str(error))], False
    findings = assess([facts], run)
    return findings, not failed(findings)


def unavailable_weights(config: Config) -> str:
    """Why weights that a run begins with are unavailable here; empty if they aren't. Fetches those of timm."""
    used = (config.model.pretrained, config.task.pretrained, config.train.init_from, config.evaluate.metrics)
    if not any(used):
        return ""
    from colordist.training.build_task import check_weights

    try:
        check_weights(config)
    except (UserError, RunError) as error:
        return str(error)
    return ""


if __name__ == "__main__":
    main()
