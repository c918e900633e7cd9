"""Train a network: ``accelerate launch -m colordist.train --config configs/cgan.yaml``."""

import os

from colordist.cli import Command, parse, run
from colordist.config import divide_batches
from colordist.run_folder import RunFolder, folder_for


def main() -> None:
    """Parse, build, run, close."""
    run(lambda: train(parse()))


def train(command: Command) -> None:
    """Begin a run, or continue it, or say that it is finished."""
    config, folder = command.config, RunFolder(folder_for(command.config, command.name))
    is_main = os.environ.get("RANK", "0") == "0"
    batches = divide_batches(config, int(os.environ.get("WORLD_SIZE", "1")))
    if command.file is None and is_main:
        print(f"no --config: {command.name}", flush=True)
    if command.dry_run:
        from colordist.build import describe

        if is_main:
            print(describe(config, batches), f"run folder: {folder.path}", sep="\n")
        return
    folder.refuse_other_run(config)
    if folder.is_finished(config.train.steps):
        if is_main:
            print(f"{folder.path} is finished: nothing to do")
        return
    if is_main:
        print(f"{command.name}: {batches}; run folder {folder.path}", flush=True)

    from colordist.build import build_trainer
    from colordist.reporting.scores import score_table

    trainer = build_trainer(config, folder)
    try:
        trainer.fit()
    finally:
        trainer.tracker.close()
    trainer.engine.close()  # not after a failure: the others may be waiting, and would make this one wait too
    if is_main:
        print(score_table([folder]))


if __name__ == "__main__":
    main()
