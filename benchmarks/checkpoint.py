"""What a checkpoint costs the training: written behind it (as it is), and written while it waits, in turns.

    python benchmarks/checkpoint.py --json checkpoint.json
    python benchmarks/checkpoint.py --set model.width=64 discriminator.width=64 --rounds 10

A round is three blocks of the same number of steps, long enough for a checkpoint to be written in one: *none* without a
checkpoint, *behind* with one at its start that is written while training goes on, *waiting* with one that is waited
for. Told in steps, that is divided by the median time of a step without a checkpoint:

- ``stall``: how long the training loop stood still, for the check that all processes agree, the copy to the host, and,
  where it waits, the writing;
- ``lost``: how much longer the block took than the one without. It includes what the writing takes from the training by
  using the same cores and memory, and every other disturbance of the machine.

The processes' own memory, a local disk and small images: a network on a GPU, or a slow disk, gives other numbers.
"""

import contextlib
import io
import statistics
from functools import partial
from pathlib import Path

from harness import ROOT, Found, arguments, finish, in_turns, ratio, read, summary, timed, told, trainer

from colordist.training.trainer import Trainer

WARM_UP = 5  # steps


class Bench:
    """Trains block by block."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, self.done, self.stalls = trainer, 0, {"none": [0.0], "behind": [0.0], "waiting": [0.0]}
        self.steps(WARM_UP)

    def steps(self, count: int) -> float:
        """Train some steps. Returns how many seconds that took."""
        begin, self.done = self.done, self.done + count
        return timed(lambda: [self.trainer.advance(step) for step in range(begin, begin + count)])

    def checkpoint(self, *, wait: bool) -> float:
        """Write a checkpoint. Returns for how many seconds training stood still."""
        assert self.trainer.writer is not None
        writer = self.trainer.writer
        return timed(lambda: (self.trainer._checkpoint(self.done), writer.wait() if wait else None))

    def block(self, arm: str, count: int) -> float:
        """Train some steps in one way. Returns how many seconds all of it took, and keeps those that it stood still."""
        assert self.trainer.writer is not None
        stall = 0.0 if arm == "none" else self.checkpoint(wait=arm == "waiting")
        whole = stall + self.steps(count)
        self.trainer.writer.wait()  # not counted: there is time enough in a block
        self.stalls[arm].append(stall)
        return whole


def measure(trainer: Trainer, rounds: int) -> Found:
    """All rounds."""
    bench = Bench(trainer)
    bench.checkpoint(wait=True)  # the first one also makes the folder
    writing = max(bench.checkpoint(wait=True) for _ in range(3))
    count = max(5, round(2 * writing / (bench.steps(WARM_UP) / WARM_UP)))
    whole = in_turns({arm: partial(bench.block, arm, count) for arm in bench.stalls}, rounds)
    stalls = {arm: found[-rounds:] for arm, found in bench.stalls.items()}
    step = statistics.median(whole["none"]) / count
    found: Found = {"step_seconds": step, "steps_a_block": count, "ratio": ratio(stalls, "behind", "waiting")}
    for arm in ("behind", "waiting"):
        lost = [(one - none) / step for one, none in zip(whole[arm], whole["none"], strict=True)]
        found[arm] = {"stall": summary([stall / step for stall in stalls[arm]]), "lost": summary(lost)}
    sizes = [file.stat().st_size for file in trainer.folder.checkpoints.glob("step-*/state.pt")]
    parameters = {name: network.parameter_count() for name, network in trainer.task.networks.items()}
    return found | {"checkpoint_bytes": sizes[-1], "parameters": parameters}


def main() -> None:
    parser = arguments(__doc__, 10)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "cgan.yaml")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="other settings")
    options = parser.parse_args()
    config = read(options, {"train.global_batch_size": 16, "train.precision": "fp32", "checkpoint.every": 10**9})
    with contextlib.redirect_stdout(io.StringIO()), trainer(config) as training:
        assert training.trainer is not None
        found = measure(training.trainer, options.rounds)
    size, step = found["checkpoint_bytes"] / 1e6, found["step_seconds"] * 1e3
    print(f"{sum(found['parameters'].values()):,} parameters, checkpoint of {size:.1f} MB, step of {step:.0f} ms")
    for arm in ("behind", "waiting"):
        for what in ("stall", "lost"):
            print(f"{arm:8} {what:5} in steps: {told(found[arm][what])}")
    print(f"stall behind / waiting: {told(found['ratio'])}")
    finish(options, {"config": options.config.stem, "set": options.set} | found)


if __name__ == "__main__":
    main()
