"""Construction of a run's objects from its config."""

import logging
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import torch

from colordist.config import Config, FileDataConfig, Value, as_dict
from colordist.data.batch import Share
from colordist.data.loader import Loader, image_digest, load_resident
from colordist.data.sampler import Sampler
from colordist.data.source import Source, StreamedDataConfig, StreamedSplit, UncroppedSplit
from colordist.data.streaming import StreamingLoader
from colordist.engine.consistency import check_same, check_same_settings
from colordist.engine.environment import check_gradient_penalties
from colordist.engine.failure_detector import Timeouts
from colordist.engine.runtime import Engine
from colordist.errors import UserError
from colordist.evaluation.build_evaluator import build_evaluator
from colordist.evaluation.build_source import build_source
from colordist.evaluation.evaluator import Evaluator
from colordist.files.atomic import writing
from colordist.keys import flatten
from colordist.run import checkpoint, snapshot
from colordist.run.folder import RunFolder, numbered
from colordist.run.identity import identity
from colordist.run.lock import Lock
from colordist.run.model_card import ModelCard
from colordist.run.provenance import code_digest, git_revision, revision
from colordist.run.score_specs import save_specs
from colordist.tasks.base import Task
from colordist.tracking import JsonLines, Terminal, Tracker, Trackers, open_wandb, require_tracking
from colordist.training.build_task import build_networks, build_task, initialize, load_pretrained
from colordist.training.meter import Meter
from colordist.training.stop_requests import StopRequests
from colordist.training.trainer import Trainer

log = logging.getLogger(__name__)

Digests = Mapping[str, str | None]
"""Digests of a run's images and weights, as for ``RunFolder.check_same_inputs``."""


def build_trainer(config: Config, folder: RunFolder, requests: StopRequests | None = None) -> Trainer:
    """Build the trainer of this process. Rank 0 takes the lock on the run folder.

    requests: signals and other stop requests.
    """
    train = config.train
    timeouts = Timeouts(config.run.heartbeat_timeout, config.run.stall_timeout)
    check_gradient_penalties(config.task.gradient_penalties)
    engine = Engine(
        precision_of(config, folder),
        deterministic=train.deterministic,
        tf32=train.tf32,
        compiled=train.compile,
        timeouts=timeouts,
    )
    config = replace(config, train=replace(config.train, precision=engine.precision))
    engine.on_ranks(lambda: require_tracking(config.track), here=engine.is_main)
    check_same_settings(engine, flatten(as_dict(config)))
    check_same_code(engine)
    source = build_source(config.data, engine)
    task = build_task(config, engine.world_size)
    pretrained = load_pretrained(task, config, engine)
    networks = build_networks(task, config)
    initial = initialize(networks[task.sampled[0]], config, engine, folder.hub_model)
    engine.prepare(task, networks)
    loader = build_loader(config, task, source, engine)
    evaluator = build_evaluator(task, source, config.evaluate, engine)
    images = source.digest or f"{loader.digest} {image_digest(evaluator.target)}"
    check_same(engine, "has other images", images, "give all machines the same, or one shared folder of them")
    digests = {"images": images, "pretrained": pretrained, "init_from": str(initial) if initial else None}
    with ExitStack() as on_failure:
        lock = engine.on_ranks(lambda: take_folder(config, folder, digests, on_failure), here=engine.is_main)
        on_failure.pop_all()
    return Trainer(
        config=config,
        folder=folder,
        engine=engine,
        task=task,
        loader=loader,
        evaluator=evaluator,
        open_run=partial(open_run, config, folder, evaluator, digests),
        meter=Meter(config.train.global_batch_size),
        card=ModelCard(
            config, len(source.train), len(evaluator.target), revision(), initial.hub_model if initial else None
        ),
        requests=requests or StopRequests(),
        lock=lock,
        writer=build_writer(config, folder, lock) if lock else None,
    )


def open_run(config: Config, folder: RunFolder, evaluator: Evaluator, digests: Digests, start: int) -> Tracker:
    """Mark a run as begun, and open its trackers; none except on rank 0. start: the first step to run."""
    engine = evaluator.engine
    engine.on_ranks(lambda: mark_begun(config, folder, digests, start), here=engine.is_main)
    engine.on_ranks(lambda: save_specs(folder, evaluator.specs), here=engine.is_main)
    return Trackers(engine.on_ranks(lambda: _trackers(config, folder, engine, start), here=engine.is_main) or [])


def mark_begun(config: Config, folder: RunFolder, digests: Digests, start: int) -> None:
    """Write the settings and digests of a run. Raises UserError if foreign files would be overwritten later."""
    for path in numbered(folder.snapshots):
        if int(path.name.removeprefix("step-")) >= start:  # these are written again
            snapshot.require_own(path)
    folder.begin(config, digests)


def check_same_code(engine: Engine) -> None:
    """Raise UserError on all ranks unless they run the same code and PyTorch."""
    way_out = "install the same version everywhere"
    check_same(engine, "runs other code", code_digest(), way_out)
    check_same(engine, "runs another version of PyTorch", torch.__version__, way_out)


def precision_of(config: Config, folder: RunFolder) -> str:
    """The precision to request: `auto` is resolved once, when the run begins."""
    precision = config.train.precision
    return folder.settings()["train"]["precision"] if precision == "auto" and folder.state != "new" else precision


def build_writer(config: Config, folder: RunFolder, lock: Lock) -> checkpoint.Writer:
    """Build the writer of checkpoints, on the rank that holds the lock."""
    owner = checkpoint.Owner(identity(config), lock.fence, lock.check_fence)
    return checkpoint.Writer(folder.checkpoints, owner, config.checkpoint, flush=folder.flush_records)


def build_loader(config: Config, task: Task, source: Source, engine: Engine) -> Loader:
    """Build the loader of this process's share of each step's batch."""
    split, data = source.train, config.data
    check_split(config, task, source)
    sampler = Sampler(
        config.seed,
        len(split),
        config.train.global_batch_size,
        config.data.flip,
        noise_shape=(task.candidates, *task.noise_shape(data.image_size)),
        unpaired=task.unpaired,
        hints=config.task.takes_hints,
        random_crops=isinstance(data, FileDataConfig) and data.crop == "random",
    )
    share = Share(
        sampler,
        task.color_space,
        engine.device,
        engine.dtype,
        config.train.micro_batch_size,
        engine.rank,
        engine.world_size,
    )
    if isinstance(split, StreamedSplit):
        return StreamingLoader(split, share, data.workers if isinstance(data, StreamedDataConfig) else 0)
    with engine.stall_exempt("loading images"):
        return load_resident(split, share, "training images", quiet=not engine.is_main)


def check_split(config: Config, task: Task, source: Source) -> None:
    """Raise UserError if the task, or the settings of crops, need other training images."""
    split, data = source.train, config.data
    if task.unpaired and len(split) < 2:
        raise UserError(
            f"task {config.task.name} divides the training images into two halves, but there is only one: add some"
        )
    scaled = isinstance(data, FileDataConfig) and (data.resize is not None or data.crop == "random")
    if scaled and not isinstance(split, UncroppedSplit | StreamedSplit):
        raise UserError(
            f"data.source {source.name} neither scales nor crops its images: leave out data.resize and data.crop"
        )


def check_devices(config: Config) -> dict[str, str]:
    """Device, precision, backend and all-reduce bandwidth of the engine: texts by name."""
    from colordist.engine.bandwidth import all_reduce

    engine = Engine(config.train.precision)
    found = {"torch runs on": f"{engine.device.type}, {engine.precision}, backend {engine.backend}"}
    if engine.world_size > 1:
        found["all-reduce"] = str(all_reduce(engine))
    engine.close()
    return found


def _trackers(config: Config, folder: RunFolder, engine: Engine, start: int) -> list[Tracker]:
    trackers: list[Tracker] = [JsonLines(folder.metrics_file, start), Terminal(config.train.steps, start)]
    if config.track.wandb != "off":
        settings = as_dict(config) | {"environment": _environment(engine)}
        if (tracker := open_wandb(config.track, folder.path, settings)) is not None:
            trackers.append(tracker)
    return trackers


def _environment(engine: Engine) -> dict[str, Value]:
    """Environment info: devices, precision and code."""
    return {
        "engine": engine.name,
        "processes": engine.world_size,
        "device": str(engine.device.type),
        "precision": engine.precision,
        "code": code_digest(),
        "git": git_revision(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
    }


def take_folder(config: Config, folder: RunFolder, digests: Digests, on_failure: ExitStack) -> Lock:
    """Check that a run folder fits this run, and take its lock."""
    folder.check_same_run(config)
    folder.check_complete()
    lock = Lock.acquire(folder.path, config.run.heartbeat_timeout, log=log.info)
    on_failure.callback(lock.withdraw)
    folder.check_same_run(config)  # again: the previous holder may have begun a run in the meantime
    folder.check_same_inputs(digests)
    with writing(folder.checkpoints):
        checkpoint.sweep(folder.checkpoints, lock.fence)
    return lock
