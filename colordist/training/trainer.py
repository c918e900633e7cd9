"""The loop."""

import dataclasses
import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from colordist.config import Config, RunError, TrainConfig, UserError
from colordist.data.loader import Loader
from colordist.engine.consistency import check_replicas
from colordist.engine.runtime import Engine
from colordist.evaluation.evaluator import Evaluator
from colordist.metrics.baselines import median_ab
from colordist.run import checkpoint, snapshot
from colordist.run.folder import RunFolder, step_name, writing
from colordist.run.lock import Lock
from colordist.run.model_card import ModelCard
from colordist.run.records import newest_references
from colordist.tasks.base import Task
from colordist.tracking import Record, Tracker
from colordist.training.stop_requests import StopRequests

log = logging.getLogger(__name__)


class Diverged(RunError):
    """The gradients are no longer numbers."""


@dataclass(frozen=True)
class Trainer:
    """Runs a task to its last step, from wherever it stands. The same on every process."""

    config: Config
    folder: RunFolder
    engine: Engine
    task: Task
    loader: Loader
    evaluator: Evaluator
    tracker: Tracker
    meter: "Meter"
    card: ModelCard
    start: int
    """The step to begin or to continue with."""
    requests: StopRequests
    """What may ask the run to stop."""
    lock: Lock | None
    """The right to write into the run folder; None on all processes but the first."""
    writer: checkpoint.Writer | None
    """What writes checkpoints behind the training; likewise."""

    def fit(self) -> None:
        """Train until the last step, or until asked to stop. Raises Diverged when gradients no longer are numbers."""
        config, step = self.config, self.start
        if step == 0:
            self._log_references()
            self._evaluate(0)
        self.engine.rehearse(self.task, self.loader.micro_batches(step)[0], step)
        self.meter.restart_clock()
        while step < config.train.steps:
            reason = self.advance(step)
            step += 1
            if reason is not None:
                self._end(step, "stopped", reason)
                return
        self._end(step, "finished")

    def advance(self, step: int) -> str | None:
        """Run a step, counted from 0, and what is due after it. Returns why to stop here, if so."""
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
                self._checkpoint(step)
        if self.writer is not None:
            self.writer.check()
        if step == config.train.steps:
            return None
        return self.engine.stops_after(step, self._asked_to_stop())

    def _asked_to_stop(self) -> str | None:
        """Why this process was asked to stop. File and clock are looked at by the first one alone."""
        if not self.engine.is_main:
            return self.requests.reason()
        return self.requests.reason(self.folder.stop_file, self.config.train.max_minutes)

    def _end(self, step: int, how: Literal["finished", "stopped"], reason: str = "") -> None:
        """See the last checkpoint written; then say how the run ended."""
        if how == "stopped" and step % self.config.checkpoint.every:
            self._checkpoint(step)
        if self.writer is not None and self.lock is not None:
            self.writer.wait()
            self.lock.check_fence()
            self.folder.mark(how, step, reason)
        if how == "stopped":
            log.info("stopped after step %d (%s): the same command continues", step, reason)
        self.engine.wait()

    def close(self) -> None:
        """Let go of the run folder: another process may write there now."""
        stall_exempt = self.engine.stall_exempt("handing over what was tracked")
        with stall_exempt, ExitStack() as last_first:  # and each even if one before it fails
            if self.lock is not None:
                last_first.callback(self.lock.release)
            last_first.callback(self.tracker.close)
            last_first.callback(self.loader.close)
            if self.writer is not None:
                last_first.callback(self.writer.wait)

    def _due(self, step: int, every: int) -> bool:
        return step % every == 0 or step == self.config.train.steps

    @property
    def _generator(self) -> nn.Module:
        """The averaged weights: what is scored, shown and saved."""
        ema = self.task.networks[self.task.generators[0]].ema
        assert ema is not None, "every generator has an EMA copy"
        return ema.module

    def _log(self, step: int) -> None:
        means, pace = self.meter.finish_interval(self.engine)
        record: Record = {"step": step, "images": step * self.config.train.global_batch_size}
        record |= pace | {"pace/peak_memory_mb": self.engine.peak_memory()} | means
        for name in self.task.phases(step - 1):
            record[f"optimizer/{name}/lr"] = self.task.networks[name].learning_rate(step - 1)
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
            record |= {f"reference/{name}/{metric}": score for metric, score in scores.items()}
        self._write_record(record)

    def _write_record(self, record: Record) -> None:
        """Log, unless another process has taken over the run: then it logs the same."""
        if self.lock is not None:
            self.lock.check_fence()
        self.tracker.log(record)

    def _evaluate(self, step: int) -> None:
        """Score the network on the test split; the first process shows and saves it."""
        check_replicas(self.engine, step)
        scores = self.evaluator.scores(self._generator)
        images = step * self.config.train.global_batch_size
        self._write_record({"step": step, "images": images} | {f"score/{name}": each for name, each in scores.items()})
        if not self.engine.is_main:
            return
        picture = self.folder.samples / f"{step_name(step)}.png"
        with writing(picture):
            picture.parent.mkdir(parents=True, exist_ok=True)
            self.evaluator.grid(self._generator).save(picture)
        self.tracker.picture(picture, step)
        about = {"step": step, "image_size": self.config.data.image_size, "scores": scores}
        saved = self.folder.snapshots / step_name(step)
        with writing(saved):
            card = self.card.text(step, scores, newest_references(self.folder.records()), self.evaluator.specs)
            snapshot.write(saved, self._generator, self.config.model, about, card)
        self.tracker.snapshot(saved, step)

    def _checkpoint(self, step: int) -> None:
        check_replicas(self.engine, step)  # so that a checkpoint can be trusted
        state = {
            "networks": self.engine.state_dict(),
            "task": self.engine.whole(self.task.state),
            "meter": self.meter.state_dict(self.engine),
        }
        if self.writer is not None:
            self.writer.submit(step, state)


def skips_allowed(train: TrainConfig, precision: str) -> int:
    """How many updates in a row may be skipped. fp16 finds its loss scale, 2**16 at first, by overflowing."""
    if train.nonfinite == "skip":
        return train.skip_limit
    return 16 if precision == "fp16" else 0


def restore(state: dict[str, Any] | None, engine: Engine, task: Task, meter: "Meter") -> int:
    """Take up what ``Trainer`` put into a checkpoint; None at the start. Returns the step to continue with.

    Raises UserError if it doesn't fit: another version may have other networks by the same settings.
    """
    if state is None:
        return 0
    try:
        engine.load_state_dict(state["networks"])
        for name, rows in task.state.items():
            rows.copy_(state["task"][name])
        meter.load_state_dict(state["meter"], engine)
        return int(state["step"])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"the checkpoint doesn't fit these networks ({reason}): name another --run.dir") from None


@dataclass
class Meter:
    """What happened since the last log line. Sums stay on the device until then."""

    global_batch_size: int
    sums: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    steps: int = 0
    since: float = dataclasses.field(default_factory=time.perf_counter)
    waited: float = 0.0
    """Seconds that the host spent on getting batches."""

    def add(self, values: dict[str, Tensor]) -> None:
        """Take a step's values: scalars."""
        self.steps += 1
        for key, value in values.items():
            self.sums[key] = self.sums[key].to(value) if key in self.sums else torch.zeros_like(value)
            self.counts[key] = self.counts.get(key, 0) + 1
        for device in {value.device for value in values.values()}:
            new = {key: value for key, value in values.items() if value.device == device}
            torch._foreach_add_([self.sums[key] for key in new], list(new.values()))  # few launches, not many

    def finish_interval(self, engine: Engine) -> tuple[dict[str, float], dict[str, float]]:
        """Means over steps and processes, in one reduction; and how fast it went here. Starts the next interval.

        The pace: ``pace/images_per_second`` over all processes, and ``pace/waiting_for_data``, a share of
        this process's time.
        """
        means = self._means({key: float(value) for key, value in self._reduced(engine).items()})
        seconds = time.perf_counter() - self.since
        pace = {
            "pace/images_per_second": self.steps * self.global_batch_size / seconds,
            "pace/waiting_for_data": self.waited / seconds,
        }
        self.sums, self.counts, self.steps = {}, {}, 0
        self.restart_clock()
        return means, pace

    def _means(self, sums: dict[str, float]) -> dict[str, float]:
        """What was skipped is counted, and has no part in its network's means."""
        means: dict[str, float] = {}
        for key, total in sums.items():
            skipped = f"diagnostics/{key.split('/')[1]}/skipped"
            counted = self.counts[key] - sums.get(skipped, 0)
            if key == skipped:
                means[key] = total
            elif counted:
                means[key] = total / counted
        return means

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time spent in here is no training time."""
        start = time.perf_counter()
        yield
        self.since += time.perf_counter() - start

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time spent in here is spent on getting data."""
        start = time.perf_counter()
        yield
        self.waited += time.perf_counter() - start

    def restart_clock(self) -> None:
        """Count time from now."""
        self.since, self.waited = time.perf_counter(), 0.0

    def _reduced(self, engine: Engine) -> dict[str, Tensor]:
        """The mean over all processes of each sum."""
        if not self.sums:
            return {}
        total = engine.sum(self._on_the_cpu()) / engine.world_size
        return dict(zip(self.sums, total, strict=True))

    def _on_the_cpu(self) -> Tensor:
        """All sums, float64: one copy from the device, which doesn't have float64 everywhere."""
        values = torch.empty(len(self.sums), dtype=torch.float64)
        for device in {value.device for value in self.sums.values()}:
            places = [place for place, value in enumerate(self.sums.values()) if value.device == device]
            together = torch.stack([value for value in self.sums.values() if value.device == device])
            values[places] = together.cpu().double()
        return values

    def state_dict(self, engine: Engine) -> dict[str, Any]:
        """The interval so far: every process's sums, so that each can continue its own to the last bit."""
        if not self.sums:
            return {"sums": {}, "counts": {}}
        mine = self._on_the_cpu()
        every = torch.zeros(engine.world_size, len(mine), dtype=mine.dtype)
        every[engine.rank] = mine
        return {"sums": dict(zip(self.sums, engine.sum(every).unbind(1), strict=True)), "counts": dict(self.counts)}

    def load_state_dict(self, state: dict[str, Any], engine: Engine) -> None:
        """Continue an interval. On another number of processes than before, each takes a mean share."""
        for key, sums in state["sums"].items():
            self.sums[key] = sums[engine.rank] if len(sums) == engine.world_size else sums.mean()
        self.counts = dict(state["counts"])
