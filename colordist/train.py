"""Train a network: ``accelerate launch -m colordist.train --config configs/cgan.yaml``."""

import gc

from colordist.cli import run, streams
from colordist.cli.parser import Command, parse
from colordist.console import say
from colordist.engine import monitor
from colordist.engine.launch import Launch
from colordist.run.folder import RunFolder, folder_for
from colordist.training.batch_arithmetic import batch_arithmetic
from colordist.training.stop_requests import StopRequests


def main() -> None:
    """Parse, build, run, close."""
    requests = StopRequests()
    requests.listen()  # before heavy imports, so that no signal during them is lost
    run(lambda: train(_parse(), requests))


def _parse() -> Command:
    """Parse, which imports torch, without garbage collection: it would look at all of these modules several times."""
    gc.disable()
    try:
        return parse()
    finally:
        gc.freeze()  # later collections don't look at them, either
        gc.enable()


def train(command: Command, requests: StopRequests | None = None) -> None:
    """Begin or continue a run, unless it is finished."""
    config, folder = command.config, RunFolder(folder_for(command.config, command.name))
    launch = Launch.read()
    is_main = launch.rank == 0
    batches = batch_arithmetic(config.train, launch.world_size)
    if command.file is None and is_main and not command.print_run_dir:
        say(f"no --config: {command.name}")
    if command.dry_run and not command.print_run_dir:
        from colordist.training.describe import describe

        if is_main:
            say(describe(config, batches), f"run folder: {folder.path}")
        return
    folder.check_same_run(config)
    if command.print_run_dir:
        print(folder.path)  # noqa: T201  for scripts: as it is
        return
    if folder.is_finished(config.train.steps):
        if is_main:
            say(f"{folder.path} is finished: nothing to do")
        return
    if is_main:
        say(f"{command.name}: {batches}; run folder {folder.path}")

    from colordist.run.records import score_table
    from colordist.training.build import build_trainer

    streams.output_is_optional()  # a run goes on without a terminal
    try:
        trainer = build_trainer(config, folder, requests)
        try:
            trainer.fit()
        finally:
            trainer.close()
        trainer.engine.close()  # not after a failure: it waits for all ranks
    finally:
        if launch.world_size == 1:
            monitor.fail("it ended early")  # of several processes ``cli.run`` reports the reason first
    if is_main:
        say(score_table(folder))


if __name__ == "__main__":
    main()
