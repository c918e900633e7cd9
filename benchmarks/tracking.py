"""What tracking costs the training: nothing written, metrics.jsonl, and W&B besides (offline), in turns.

    python benchmarks/tracking.py --json tracking.json

A round is one block of steps in each of three ways, a line logged after every step. Told are

- ``line``: how long the training loop stands still for one line, in ms: metrics.jsonl is on disk, W&B was handed it;
- ``step``: how much longer a step takes than with nothing written, in per cent: it also shows what W&B's own process
  takes from the same cores. Runs log every 50 steps, not every one, so their share of it is a fiftieth.
- ``picture``: the same as ``line`` for a sample grid with its histograms, which comes once an evaluation.
"""

import contextlib
import io
import os
import tempfile
from functools import partial
from pathlib import Path

from harness import ROOT, Found, arguments, finish, in_turns, read, summary, timed, told, trainer
from PIL import Image

from colordist.config import TrackConfig
from colordist.tracking import JsonLines, Tracker, Trackers, WandB
from colordist.training.trainer import Trainer

ARMS = ("none", "jsonl", "wandb")


class Bench:
    """Trains block by block, each logged in one way."""

    def __init__(self, trainer: Trainer, folder: Path) -> None:
        self.trainer, self.step = trainer, 0
        self.trackers: dict[str, Trackers] = {}
        self.lines: dict[str, list[float]] = {arm: [] for arm in ARMS}  # seconds
        self.eval_batch: dict[str, list[float]] = {arm: [] for arm in ARMS}
        for arm in ARMS:
            (folder / arm).mkdir()
            trackers: list[Tracker] = [JsonLines(folder / arm / "metrics.jsonl", 0)] if arm != "none" else []
            if arm == "wandb":
                trackers.append(WandB(TrackConfig(wandb="offline"), folder / arm, {}))
            self.trackers[arm] = Trackers(trackers)
        self.grid = folder / "grid.png"
        Image.effect_noise((16 * 32, 3 * 32), 64).convert("RGB").save(self.grid)

    def block(self, arm: str, count: int) -> float:
        """Train some steps, and show a picture. Returns the seconds of a step; keeps those of a line and a picture."""
        trackers, lines = self.trackers[arm], []

        def advance() -> None:
            values = self.trainer.engine.step(
                self.trainer.task, self.trainer.loader.micro_batches(self.step), self.step
            )
            self.step += 1
            record = {"step": self.step, "images": 16 * self.step, **{key: float(each) for key, each in values.items()}}
            lines.append(timed(lambda: trackers.log(record)))

        seconds = timed(lambda: [advance() for _ in range(count)]) / count
        self.lines[arm].append(sum(lines) / count)
        self.eval_batch[arm].append(timed(lambda: trackers.picture(self.grid, self.step)))
        return seconds


def measure(bench: Bench, rounds: int, steps: int) -> Found:
    """All rounds."""
    seconds = in_turns({arm: partial(bench.block, arm, steps) for arm in ARMS}, rounds)
    found: Found = {"step_ms": summary([1e3 * step for step in seconds["none"]])}
    for arm in ARMS[1:]:
        longer = [100 * (step / none - 1) for step, none in zip(seconds[arm], seconds["none"], strict=True)]
        found[arm] = {
            "line_ms": summary([1e3 * each for each in bench.lines[arm][-rounds:]]),
            "step_percent": summary(longer),
            "picture_ms": summary([1e3 * each for each in bench.eval_batch[arm][-rounds:]]),
        }
    return found


def main() -> None:
    parser = arguments(__doc__, 12)
    parser.add_argument("--steps", type=int, default=30, help="of a block")
    parser.set_defaults(config=ROOT / "configs" / "quickstart_cgan.yaml", set=[])
    options = parser.parse_args()
    os.environ["WANDB_SILENT"] = "true"
    config = read(options, {"train.precision": "fp32"})
    with (
        contextlib.redirect_stdout(io.StringIO()),
        tempfile.TemporaryDirectory(prefix="tracking-") as name,
        trainer(config) as training,
    ):
        assert training.trainer is not None
        bench = Bench(training.trainer, Path(name))
        try:
            found = measure(bench, options.rounds, options.steps)
        finally:
            for trackers in bench.trackers.values():
                trackers.close()
    print(f"a step with nothing written: {told(found['step_ms'], 2)} ms")
    for arm in ARMS[1:]:
        print(f"{arm:6} line {told(found[arm]['line_ms'], 2)} ms; picture {told(found[arm]['picture_ms'], 2)} ms")
        print(f"{arm:6} a step longer by {told(found[arm]['step_percent'], 2)} %")
    finish(options, found)


if __name__ == "__main__":
    main()
