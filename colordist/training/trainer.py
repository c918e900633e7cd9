"""The training loop; saving and restoring."""

import dataclasses
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from colordist.config import Config, TrainConfig
from colordist.data.loader import Loader
from colordist.data.sampler import share
from colordist.engine.consistency import check_replicas
from colordist.engine.runtime import Engine
from colordist.errors import RunError, UserError, one_line
from colordist.evaluation.evaluator import Evaluator
from colordist.files.atomic import out_of_memory, replacing, writing
from colordist.metrics.baselines import median_ab
from colordist.run import checkpoint, snapshot
from colordist.run.folder import RunFolder, numbered, step_name
from colordist.run.identity import identity
from colordist.run.lock import Lock
from colordist.run.model_card import ModelCard
from colordist.run.records import PACE, REFERENCE, SCORE, newest_references
from colordist.tasks.base import Task
from colordist.tracking import Record, Tracker, Trackers
from colordist.training.meter import Meter
from colordist.training.stop_requests import StopRequests

log = logging.getLogger(__name__)


class Diverged(RunError):
    """Too many updates in a row were skipped because of Inf or NaN gradients."""


@dataclass
class Trainer:
    """Trains a task to its last step, from its newest checkpoint. All ranks run the same."""

    config: Config
    folder: RunFolder
    engine: Engine
    task: Task
    loader: Loader
    evaluator: Evaluator
    open_run: Callable[[int], Tracker]
    """Marks the run as begun and opens its trackers, given the first step to run."""
    meter: Meter
    card: ModelCard
    requests: StopRequests
    """Signals and other requests to stop."""
    lock: Lock | None
    """The lock on the run folder; None except on rank 0."""
    writer: checkpoint.Writer | None
    """Writes checkpoints in the background; None except on rank 0."""
    tracker: Tracker = dataclasses.field(default_factory=lambda: Trackers([]))
    """Empty until ``start``."""
    references: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    """Scores of the baselines and the oracle on the test split, by name, then by metric."""

    def fit(self) -> None:
        """Restore, then train until the last step or a stop request. Raises Diverged on repeated Inf or NaN."""
        step = self.start()
        if step == 0:
            self._log_references()
            self._evaluate(0)
        self.engine.rehearse(self.task, self.loader.micro_batches(step)[0], step)
        self.meter.restart_clock()
        while step < self.config.train.steps:
            reason = self.advance(step)
            step += 1
            if reason is not None:
                self._end(step, "stopped", reason)
                return
        self._end(step, "finished")

    def start(self) -> int:
        """Restore, then open the run folder and the trackers. Returns the first step to run."""
        step = self.restore()
        self.tracker = self.open_run(step)
        return step

    def advance(self, step: int) -> str | None:
        """Run a step (from 0), then log, evaluate and save as due. Returns the reason to stop after it, or None."""
        config, meter = self.config, self.meter
        with meter.waiting():
            batches = self.loader.micro_batches(step)
        meter.add(self.engine.step(self.task, batches, step))
        step += 1
        if config.train.nonfinite == "stop":
            self._check_divergence(step)
        if self._due(step, config.log.every):
            self._log(step)
        if self._due(step, config.evaluate.every):
            with meter.paused():
                self._evaluate(step)
        if self._due(step, config.checkpoint.every):
            with meter.paused():
                self.save(step)
        if self.writer is not None:
            self.writer.check()
        if step == config.train.steps:
            return None
        return self.engine.stops_after(step, self._stop_requested())

    def save(self, step: int) -> None:
        """Save a checkpoint. All ranks gather the state; rank 0 writes it in the background."""
        check_replicas(self.engine, step)  # never save a corrupted state
        state = {
            "networks": self.engine.state_dict(),
            "task": self.engine.gather_state(self.task.state),
            "meter": self.meter.state_dict(self.engine),
        }
        if self.writer is not None:
            with self.writer.tolerating():
                self.tracker.flush()  # a checkpoint mustn't be ahead of metrics.jsonl
                self.writer.submit(step, state)

    def restore(self) -> int:
        """Load the newest complete checkpoint. Returns the first step to run, 0 without a checkpoint.

        Raises UserError if it doesn't fit, as another version may build other networks by the same settings; RunError
        if memory runs out.
        """
        state = load_newest(self.config, self.folder, self.engine)
        if state is None:
            return 0
        try:
            self.engine.load_state_dict(state["networks"])
            for name, rows in self.task.state.items():
                every = state["task"][name]
                rows.copy_(every[share(len(every), self.engine.rank, self.engine.world_size)])
            self.meter.load_state_dict(state["meter"], self.engine)
            step: int = state["step"]
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, MemoryError) as error:
            reason = one_line(error, 200)
            if out_of_memory(error):
                way_out = "free some, or use more processes; the same command continues"
                raise RunError(f"out of memory while loading the checkpoint ({reason}): {way_out}") from None
            if isinstance(error, torch.AcceleratorError):  # a device that failed says nothing about the checkpoint
                raise
            raise UserError(f"the checkpoint doesn't fit these networks ({reason}): name another --run.dir") from None
        references = self.engine.on_ranks(lambda: newest_references(self.folder.records()), here=self.engine.is_main)
        self.references = references or {}
        return step

    def _stop_requested(self) -> str | None:
        """The reason of a stop requested on this rank, or None. Only rank 0 checks the stop file and the time limit."""
        if not self.engine.is_main:
            return self.requests.reason()
        return self.requests.reason(self.folder.stop_file, self.config.train.max_minutes)

    def _end(self, step: int, how: Literal["finished", "stopped"], reason: str = "") -> None:
        """Save if stopped between two checkpoints, wait for the write, then mark the run as finished or stopped."""
        if how == "stopped" and step % self.config.checkpoint.every:
            self.save(step)
        if self.writer is not None and self.lock is not None:
            self.writer.finish()
            self.tracker.flush()
            self.lock.check_fence()
            self.folder.mark(how, step, reason)
        if how == "stopped":
            log.info("stopped after step %d (%s): the same command continues", step, reason)
        self.engine.wait()

    def close(self) -> None:
        """Close writer, loader and trackers, then release the lock. Each of them, even if another one fails."""
        with ExitStack() as last_first:
            if self.lock is not None:
                last_first.callback(self.lock.withdraw)
            last_first.callback(self._close_tracker)
            last_first.callback(self.loader.close)
            if self.writer is not None:
                last_first.callback(self.writer.wait)

    def _close_tracker(self) -> None:
        with self.engine.stall_exempt("closing trackers"):
            self.tracker.close()

    def _due(self, step: int, every: int) -> bool:
        return step % every == 0 or step == self.config.train.steps

    @property
    def _ema(self) -> dict[str, nn.Module]:
        """EMA copies of the networks that the task samples with: evaluated and saved as snapshots."""
        found = {name: self.engine.networks[name].ema for name in self.task.sampled}
        assert None not in found.values(), "networks that sample have EMA weights"
        return {name: ema.module for name, ema in found.items() if ema is not None}

    def _sample(self, grey: Tensor, noise: Tensor | None) -> Tensor:
        return self.task.sample(self._ema, grey, noise)

    def _log(self, step: int) -> None:
        means, pace = self.meter.finish_interval(self.engine)
        record: Record = {"step": step, "images": step * self.config.train.global_batch_size}
        record |= pace | {f"{PACE}peak_memory_mb": self.engine.peak_memory()} | means
        for name in self.task.phases(step - 1):
            record[f"optimizer/{name}/lr"] = self.engine.networks[name].learning_rate(step - 1)
        self._write_record(record)
        self._check_divergence(step)

    def _check_divergence(self, step: int) -> None:
        """Raise Diverged if too many updates were skipped in a row. Waits for the device."""
        train = self.config.train
        for name, count in self.engine.skipped_in_a_row().items():
            if count > skips_allowed(train, self.engine.precision):
                when = f"in {count} updates in a row, up to step {step}" if count > 1 else f"at step {step}"
                raise Diverged(
                    f"the gradient of the {name} was not finite {when}: try a lower learning rate, or train.precision "
                    "fp32; the same command continues from the last checkpoint"
                )

    def _log_references(self) -> None:
        record: Record = {"step": 0, "images": 0}
        with self.engine.stall_exempt("loading images"):
            median = median_ab(self.loader.sample())
        references = self.evaluator.references(median)
        for name, scores in references.items():
            record |= {f"{REFERENCE}{name}/{metric}": score for metric, score in scores.items()}
        self.references = newest_references([record])
        self._write_record(record)

    def _write_record(self, record: Record) -> None:
        """Log a record. Raises RunError if another process has taken over the run folder: it logs the same."""
        if self.lock is not None:
            with self._tolerating(record["step"]):
                self.lock.check_fence()
        with self._tolerating(record["step"]):
            self.tracker.log(record)

    def _tolerating(self, step: float) -> AbstractContextManager[None]:
        """Context of a write into the run folder after a step.

        A failure is a warning if `checkpoint.on_error` says so, except after the last step: nobody would repeat it.
        """
        if self.writer is None or step == self.config.train.steps:
            return nullcontext()
        return self.writer.tolerating()

    def _evaluate(self, step: int) -> None:
        """Evaluate the generator on the test split; rank 0 saves sample grid and snapshot."""
        check_replicas(self.engine, step)
        scores = self.evaluator.scores(self._sample)
        images = step * self.config.train.global_batch_size
        self._write_record({"step": step, "images": images} | {f"{SCORE}{name}": each for name, each in scores.items()})
        if not self.engine.is_main:
            return
        with self._tolerating(step):
            self._save_grid(self.folder.samples / f"{step_name(step)}.png", step)
        with self._tolerating(step):
            self._save_snapshot(self.folder.snapshots / step_name(step), step, scores)

    def _save_grid(self, file: Path, step: int) -> None:
        grid = self.evaluator.grid(self._sample)
        with writing(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(file) as draft:
                grid.save(draft, "PNG")
        self.tracker.picture(file, step)

    def _save_snapshot(self, folder: Path, step: int, scores: dict[str, float]) -> None:
        about = self.card.origin | {"step": step, "image_size": self.config.data.image_size, "scores": scores}
        with writing(folder):
            card = self.card.text(step, scores, self.references, self.evaluator.specs)
            snapshot.write(folder, self.task, self._ema, about, card)
        self.tracker.snapshot(folder, step)


def skips_allowed(train: TrainConfig, precision: str) -> int:
    """Number of consecutive updates that may be skipped. fp16 needs some: its first loss scale, 2**16, overflows."""
    if train.nonfinite == "skip":
        return train.skip_limit
    return 16 if precision == "fp16" else 0


def load_newest(config: Config, folder: RunFolder, engine: Engine) -> dict[str, Any] | None:
    """Load the newest complete checkpoint, as found by rank 0, on every rank; None if there is none."""
    newest: Path | None = engine.from_main(engine.on_ranks(lambda: find_newest(config, folder), here=engine.is_main))
    return None if newest is None else engine.on_all_ranks(lambda: checkpoint.load(newest))


def find_newest(config: Config, folder: RunFolder) -> Path | None:
    """Find the newest complete checkpoint. Newer, damaged ones are logged and set aside."""
    newest, damaged = checkpoint.newest(folder.checkpoints, identity(config))
    for line in damaged:
        log.warning("%s, so the run continues from %s", line, newest)
    if newest is not None:
        checkpoints = numbered(folder.checkpoints)
        for path in checkpoints[checkpoints.index(newest) + 1 :]:
            checkpoint.set_aside(path)
    return newest
