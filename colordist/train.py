"""Train a network: ``accelerate launch -m colordist.train --config configs/cgan.yaml``."""

from colordist.cli import run
from colordist.cli.parser import Command, parse
from colordist.engine import monitor
from colordist.engine.launch import Launch
from colordist.extras import needs_extra
from colordist.run.folder import RunFolder, folder_for
from colordist.training.batch_arithmetic import batch_arithmetic
from colordist.training.stop_requests import StopRequests


def main() -> None:
    """Parse, build, run, close."""
    requests = StopRequests()
    requests.listen()  # before heavy imports, so that no signal during them is lost
    run(lambda: train(parse(), requests))


def train(command: Command, requests: StopRequests | None = None) -> None:
    """Begin or continue a run, unless it is finished."""
    config, folder = command.config, RunFolder(folder_for(command.config, command.name))
    launch = Launch.read()
    is_main = launch.rank == 0
    batches = batch_arithmetic(config.train, launch.world_size)
    if command.file is None and is_main and not command.print_run_dir:
        print(f"no --config: {command.name}", flush=True)
    if command.dry_run and not command.print_run_dir:
        from colordist.training.describe import describe

        if is_main:
            print(describe(config, batches), f"run folder: {folder.path}", sep="\n")
        return
    folder.check_same_run(config)
    if command.print_run_dir:
        print(folder.path)
        return
    if folder.is_finished(config.train.steps):
        if is_main:
            print(f"{folder.path} is finished: nothing to do")
        return
    if is_main:
        print(f"{command.name}: {batches}; run folder {folder.path}", flush=True)

    from colordist.run.records import score_table

    with needs_extra("train", "training"):
        from colordist.training.build import build_trainer

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
        print(score_table(folder))


if __name__ == "__main__":
    main()
