"""From a config to the objects that a run is made of: one small function a part."""

import logging
import os
import subprocess
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from colordist.color import ColorSpace
from colordist.config import (
    BatchArithmetic,
    Config,
    DataConfig,
    EvaluateConfig,
    ModelConfig,
    UserError,
    Value,
    flatten,
    identity,
)
from colordist.data.loader import Loader, ResidentLoader, Share, image_digest, load, sample
from colordist.data.sampler import Sampler, variant_noise
from colordist.data.source import MaskedSplit, Source, StreamedSplit
from colordist.data.streaming import StreamingLoader
from colordist.engine.consistency import check_same, check_same_settings
from colordist.engine.environment import check_gradient_penalties, device_type, resolve_precision, zero_stage
from colordist.engine.failure_detector import Timeouts
from colordist.engine.preflight import code_digest
from colordist.engine.runtime import Engine
from colordist.evaluation.build_source import build_source
from colordist.evaluation.evaluator import VARIANTS, Evaluation, Evaluator
from colordist.metrics.baselines import median_ab
from colordist.metrics.metric import EvalSet
from colordist.metrics.optional import build_metrics
from colordist.run import checkpoint, snapshot
from colordist.run.folder import RunFolder, numbered, writing
from colordist.run.lock import Lock
from colordist.run.model_card import ModelCard
from colordist.run.score_specs import save_specs
from colordist.tasks.base import Task
from colordist.tracking import JsonLines, Terminal, Tracker, Trackers, WandB
from colordist.training.build_task import build_task, initialize
from colordist.training.memory import estimate
from colordist.training.stop_requests import StopRequests
from colordist.training.trainer import Meter, Trainer, restore

log = logging.getLogger(__name__)


def build_trainer(config: Config, folder: RunFolder, requests: StopRequests | None = None) -> Trainer:
    """Everything that a run needs, on this process; continued from its newest checkpoint, if there is one.

    requests: what may ask the run to stop.
    """
    train = config.train
    timeouts = Timeouts(config.run.heartbeat_timeout, config.run.stall_timeout)
    if config.task == "cgan":
        check_gradient_penalties({"loss.r1_weight": config.loss.r1_weight, "loss.r2_weight": config.loss.r2_weight})
    engine = Engine(
        precision_of(config, folder),
        deterministic=train.deterministic,
        tf32=train.tf32,
        compiled=train.compile,
        timeouts=timeouts,
    )
    config = replace(config, train=replace(config.train, precision=engine.precision))
    check_same_settings(engine, flatten(asdict(config)))
    check_same_code(engine)
    source = build_source(config.data, engine)
    task = build_task(config)
    weights = initialize(task, config, engine)
    engine.prepare(task)
    loader = build_loader(config, source, engine)
    evaluator = build_evaluator(config.model, source, config.evaluate, engine)
    digests = f"{loader.digest} {image_digest(evaluator.target)}"
    check_same(engine, "has other images", digests, "give all machines the same, or one shared folder of them")
    locks: list[Lock] = []
    meter = Meter(config.train.global_batch_size)
    with ExitStack() as on_failure:

        def take() -> None:
            locks.append(take_folder(config, folder, digests, weights, on_failure))

        engine.run_on_all_ranks(take, here=engine.is_main)
        start = restore(load_newest(config, folder, engine), engine, task, meter)
        engine.run_on_all_ranks(lambda: save_specs(folder, evaluator.specs), here=engine.is_main)
        tracker = build_tracker(config, folder, engine, start)
        engine.run_on_all_ranks(lambda: folder.begin(config), here=engine.is_main)
        on_failure.pop_all()
    return Trainer(
        config=config,
        folder=folder,
        engine=engine,
        task=task,
        loader=loader,
        evaluator=evaluator,
        tracker=tracker,
        meter=meter,
        card=ModelCard(config, len(source.train), len(evaluator.target), revision()),
        start=start,
        requests=requests or StopRequests(),
        lock=locks[0] if locks else None,
        writer=build_writer(config, folder, locks[0]) if locks else None,
    )


def check_same_code(engine: Engine) -> None:
    """Raise UserError on all processes unless they run the same."""
    way_out = "install the same version everywhere"
    check_same(engine, "runs other code", code_digest(), way_out)
    check_same(engine, "runs another version of PyTorch", torch.__version__, way_out)


def precision_of(config: Config, folder: RunFolder) -> str:
    """The number format to ask for: `auto` is resolved once, when the run begins."""
    precision = config.train.precision
    return folder.settings()["train"]["precision"] if precision == "auto" and folder.state != "new" else precision


def load_newest(config: Config, folder: RunFolder, engine: Engine) -> dict[str, Any] | None:
    """The state in the newest whole checkpoint that the first process sees, on every process; None at the start."""
    found: list[Path | None] = []
    engine.run_on_all_ranks(lambda: found.append(find_newest(config, folder)), here=engine.is_main)
    newest = engine.from_main(found[0] if found else None)
    if newest is None:
        return None
    states: list[dict[str, Any]] = []
    engine.run_on_all_ranks(lambda: states.append(checkpoint.load(newest)))
    return states[0]


def find_newest(config: Config, folder: RunFolder) -> Path | None:
    """The newest whole checkpoint. Newer, damaged ones are told and taken out of the way."""
    newest, damaged = checkpoint.newest(folder.checkpoints, identity(config))
    for line in damaged:
        log.warning("%s, so the run continues from %s", line, newest)
    if newest is not None:
        checkpoints = numbered(folder.checkpoints)
        for path in checkpoints[checkpoints.index(newest) + 1 :]:
            checkpoint.set_aside(path)
    return newest


def build_writer(config: Config, folder: RunFolder, lock: Lock) -> checkpoint.Writer:
    """What writes checkpoints, on the process that holds the lock."""
    owner = checkpoint.Owner(identity(config), lock.fence, lock.check_fence)
    return checkpoint.Writer(folder.checkpoints, owner, config.checkpoint, flush=folder.flush_records)


def build_loader(config: Config, source: Source, engine: Engine) -> Loader:
    """What gives this process its part of each step."""
    split = source.train
    if config.task == "cyclegan" and len(split) < 2:
        raise UserError("task cyclegan divides the training images into two halves, but there is only one: add some")
    sampler = Sampler(
        config.seed,
        len(split),
        config.train.global_batch_size,
        config.data.flip,
        noise=(config.loss.candidates, config.model.noise),
        unpaired=config.task == "cyclegan",
        shards=split.shard_sizes() if isinstance(split, StreamedSplit) else (),
        shuffle_shards=config.data.shuffle_shards,
    )
    share = Share(
        sampler,
        ColorSpace(config.model.color_space),
        engine.device,
        engine.dtype,
        config.train.micro_batch_size,
        engine.rank,
        engine.world_size,
    )
    if isinstance(split, StreamedSplit):
        return StreamingLoader(split, share, config.data.workers)
    with engine.stall_exempt("loading images"):
        return ResidentLoader(load(split, engine.device, "training images", quiet=not engine.is_main), share)


def build_evaluator(model: ModelConfig, source: Source, config: EvaluateConfig, engine: Engine) -> Evaluator:
    """What scores a generator of this kind, on the test split. config: by what, besides the usual."""
    objects = None
    if isinstance(source.test, MaskedSplit):
        masks = np.stack([source.test.objects(index) for index in range(len(source.test))])
        objects = torch.from_numpy(masks).to(engine.device)
    with engine.stall_exempt("loading images"):
        target = load(source.test, engine.device, "test images", quiet=not engine.is_main)
    if torch.equal(target[:, 0], target[:, 1]) and torch.equal(target[:, 1], target[:, 2]):
        raise UserError(f"no test image of data.source {source.name} has any colour, so there is nothing to score")
    with engine.stall_exempt("loading metrics"):
        metrics = build_metrics(config.metrics, eval_set(source, target))
    noise = build_noise(model, len(target)).to(engine.dtype).to(engine.device) if model.noise else None
    evaluator = Evaluator(target, objects, noise, metrics, ColorSpace(model.color_space), engine)
    networks = [each.network for each in evaluator.features]
    check_same(engine, "scores by another classifier", networks, "give all machines the same")
    return evaluator


def eval_set(source: Source, target: Tensor) -> EvalSet:
    """What metrics may know of a source's test split. target: its images, uint8 [N, 3, H, W]."""
    labels = source.labels
    return EvalSet(
        image_size=target.shape[-1],
        device=target.device,
        classes=() if labels is None else labels.classes,
        labels=None if labels is None else torch.from_numpy(labels.test),
        ambiguous_colors=source.ambiguous_colors,
    )


def build_noise(model: ModelConfig, images: int) -> Tensor:
    """The noise by which the test images are scored, the same in every run: [images, VARIANTS, model.noise]."""
    candidates = [[variant_noise(image, each, model.noise) for each in range(VARIANTS)] for image in range(images)]
    return torch.from_numpy(np.array(candidates))


def evaluate_snapshot(folder: Path, data: DataConfig, config: EvaluateConfig) -> Evaluation | None:
    """Score a run's newest snapshot on some data, on all processes together. None on all but the first."""
    generator, model, about = snapshot.read(snapshot.latest(folder))
    step = snapshot.step_of(snapshot.latest(folder), about)
    if data.image_size % 2**model.depth:
        fitting = data.image_size // 2**model.depth * 2**model.depth
        raise UserError(f"data.image_size is {data.image_size}, which this network can't halve: try {fitting or 16}")
    engine = Engine("fp32")
    source = build_source(data, engine)
    evaluator = build_evaluator(model, source, config, engine)
    with engine.stall_exempt("loading images"):
        median = median_ab(sample(source.train, engine.device))
    references = evaluator.references(median)
    scores = evaluator.scores(generator.to(engine.device, engine.dtype))
    engine.close()
    images = len(source.test)
    networks = [each.network for each in evaluator.features]
    found = Evaluation(str(folder), step, asdict(data), images, scores, references, evaluator.specs, networks)
    return found if engine.is_main else None


def check_devices(config: Config) -> dict[str, str]:
    """What the engine runs on, and how fast its processes talk: as text, by name."""
    from colordist.engine.bandwidth import all_reduce

    engine = Engine(config.train.precision)
    found = {"torch runs on": f"{engine.device.type}, {engine.precision}, backend {engine.backend}"}
    if engine.world_size > 1:
        found["all-reduce"] = str(all_reduce(engine))
    engine.close()
    return found


def build_tracker(config: Config, folder: RunFolder, engine: Engine, start: int) -> Tracker:
    """Where numbers go: nowhere but on the first process. start: the step that the run begins or continues with."""
    trackers: list[Tracker] = []

    def make() -> None:
        trackers.append(JsonLines(folder.metrics_file, start))
        trackers.append(Terminal(config.train.steps, start))
        if config.track.wandb != "off":
            trackers.append(
                WandB(config.track, folder.path, asdict(config) | {"environment": environment_info(engine)})
            )

    engine.run_on_all_ranks(make, here=engine.is_main)
    return Trackers(trackers)


def environment_info(engine: Engine) -> dict[str, Value]:
    """What a run runs on, and by which code."""
    return {
        "engine": engine.name,
        "processes": engine.world_size,
        "device": str(engine.device.type),
        "precision": engine.precision,
        "code": code_digest(),
        "git": git_revision(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
    }


def revision() -> str:
    """What stands for the code: of its files, and where it is a checkout, the commit."""
    return f"{code_digest()} (git {commit})" if (commit := git_revision()) else code_digest()


def git_revision() -> str | None:
    """The commit that the code is of; None where it isn't a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def take_folder(config: Config, folder: RunFolder, images: str, weights: str | None, on_failure: ExitStack) -> Lock:
    """Make this process the writer of a run folder that fits.

    images, weights: what stands for the run's images, and for the weights that it begins with, if not at random.
    """
    folder.check_same_run(config)
    folder.check_complete()
    lock = Lock.acquire(folder.path, config.run.heartbeat_timeout, log=log.info)
    on_failure.callback(lock.release)
    folder.check_same_run(config)  # the writer before may have begun one since
    folder.check_same_images(images)
    if weights is not None:
        folder.check_same_weights(weights)
    with writing(folder.checkpoints):
        checkpoint.sweep(folder.checkpoints, lock.fence)
    return lock


def describe(config: Config, batches: BatchArithmetic) -> str:
    """The resolved settings, the batch arithmetic, parameters and memory, as text."""
    task = build_task(config)
    counts = [f"{name}: {network.parameter_count():,} parameters" for name, network in task.networks.items()]
    settings = yaml.safe_dump(asdict(config), sort_keys=False)
    return "\n".join([settings, str(batches), *counts, estimate_memory(task, config, batches)])


def estimate_memory(task: Task, config: Config, batches: BatchArithmetic) -> str:
    """The memory that a process will need to train a task, if its device is one like here."""
    device, precision = "cuda" if device_type() == "cuda" else "cpu", config.train.precision
    if precision == "auto":
        precision = resolve_precision(precision, device)
    memory = estimate(task, replace(config, train=replace(config.train, precision=precision)), batches, device)
    image = f"{3 * config.data.image_size**2 / 2**10:.0f} KiB"
    undivided = "" if zero_stage() is None else ", before ZeRO divides it"
    return (
        f"memory per process ({device}, {precision}{undivided}): {memory}, besides PyTorch itself and the images "
        f"({image} each; of `shards`, only those to be scored on)"
    )
