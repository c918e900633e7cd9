"""What checkpoints and tracking cost the training.

    python benchmarks/overhead.py --json overhead.json
    python benchmarks/overhead.py --set model.width=64 discriminator.width=64 --rounds 10

Blocks of steps run alternately on one process: *none* with nothing written; *checkpoint* with one checkpoint, written
in the background; *checkpoint, waiting* with one that is waited for; *metrics.jsonl* with a log line after each step;
*W&B* with the same line there, too, offline. For each:

- *stall*: how long the training loop stands still for a checkpoint or a line, in ms. A checkpoint's includes the check
  that all replicas agree, and the copy to the host;
- *slowdown*: the time of the block over that of *none*. It includes what writing takes from the training by using the
  same cores and memory.

The ratio is ``checkpoint / checkpoint, waiting``, of the stalls. A GPU or a slow disk gives other numbers.
"""

import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from harness import Results, alternate, arguments, as_text, finish, load, open_trainer, ratio, summary, timed

from colordist.config import TrackConfig
from colordist.tracking import JsonLines, Trackers, WandB
from colordist.training.trainer import Trainer

LOGGED = ("l1", "gradient_difference", "adversarial", "real", "fake", "gradient_norm", "skipped", "lr")
EVENTS = ("none", "checkpoint", "checkpoint, waiting", "metrics.jsonl", "W&B")


class Bench:
    """Trains block by block."""

    def __init__(self, trainer: Trainer, folder: Path) -> None:
        for name in ("local", "wandb"):
            (folder / name).mkdir()
        lines, also_lines = (JsonLines(folder / name / "metrics.jsonl", 0) for name in ("local", "wandb"))
        wandb = Trackers([also_lines, WandB(TrackConfig(wandb="offline"), folder / "wandb", {})])
        self.trainer, self.trackers, self.step = trainer, [lines, wandb], 0
        self.stalls: dict[str, list[float]] = {name: [] for name in EVENTS}
        """Seconds for an event, one per block."""
        self.events: dict[str, Callable[[], object]] = {
            "checkpoint": lambda: trainer.save(self.step),
            "checkpoint, waiting": lambda: (trainer.save(self.step), self.wait()),
            "metrics.jsonl": lambda: lines.log(self.record()),
            "W&B": lambda: wandb.log(self.record()),
        }

    def record(self) -> dict[str, float]:
        """A log line."""
        return {"step": self.step, "images": self.step, **{f"loss/generator/{name}": 0.1 for name in LOGGED}}

    def wait(self) -> None:
        """Wait until the checkpoint is written."""
        assert self.trainer.writer is not None
        self.trainer.writer.wait()

    def block(self, name: str, steps: int) -> float:
        """Train some steps, with an event after the first (a checkpoint) or each. Returns the seconds of all."""
        stalls = []

        def train() -> None:
            for number in range(steps):
                self.trainer.advance(self.step)
                self.step += 1
                if name in self.events and (number == 0 or "checkpoint" not in name):
                    stalls.append(timed(self.events[name]))

        seconds = timed(train)
        self.wait()  # not counted: a block is long enough
        self.stalls[name].append(sum(stalls) / max(1, len(stalls)))
        return seconds


def measure(bench: Bench, rounds: int, steps: int) -> Results:
    """All rounds."""
    seconds = alternate({name: partial(bench.block, name, steps) for name in EVENTS}, rounds)
    stalls = {name: each[-rounds:] for name, each in bench.stalls.items()}
    found: Results = {"step_seconds": summary([each / steps for each in seconds["none"]])}
    for name in EVENTS[1:]:
        stall = summary([1e3 * each for each in stalls[name]])
        found[name] = {"stall_ms": stall, "slowdown": ratio(seconds, name, "none")}
    sizes = [file.stat().st_size for file in bench.trainer.folder.checkpoints.glob("step-*/state.pt")]
    return found | {"ratio": ratio(stalls, "checkpoint", "checkpoint, waiting"), "checkpoint_mb": max(sizes) / 1e6}


def main() -> None:
    parser = arguments(__doc__, 10, "cgan")
    parser.add_argument("--steps", type=int, default=20, help="in a block: longer than a checkpoint takes to write")
    options = parser.parse_args()
    os.environ["WANDB_SILENT"] = "true"
    config = load(options, {"train.global_batch_size": 16, "train.precision": "fp32"})
    with tempfile.TemporaryDirectory(prefix="overhead-") as folder, open_trainer(config) as trainer:
        bench = Bench(trainer, Path(folder))
        try:
            found = measure(bench, options.rounds, options.steps)
        finally:
            for tracker in bench.trackers:
                tracker.close()
    print(f"step of {as_text(found['step_seconds'], 0, 1e3)} ms, checkpoint of {found['checkpoint_mb']:.1f} MB")
    for name in EVENTS[1:]:
        print(f"{name:20} stall {as_text(found[name]['stall_ms'], 2)} ms, slowdown {as_text(found[name]['slowdown'])}")
    print(f"stall, checkpoint / checkpoint, waiting: {as_text(found['ratio'])}")
    finish(options, {"config": options.config.stem, "set": options.set} | found)


if __name__ == "__main__":
    main()
