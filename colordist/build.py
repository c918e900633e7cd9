"""From a config to the objects that a run is made of: one small function a part."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import yaml
from torch import nn

from colordist import snapshot
from colordist.color import ColorSpace
from colordist.config import BatchArithmetic, Config, DataConfig, batch_arithmetic
from colordist.data.loader import Loader, load
from colordist.data.plan import Plan
from colordist.data.source import MarkedSplit, Source
from colordist.engine import checkpoint
from colordist.engine.runtime import Engine
from colordist.evaluation import Evaluation, Examiner
from colordist.memory import estimate
from colordist.metrics import METRICS
from colordist.metrics.floors import median_ab
from colordist.models import build_discriminator, build_generator
from colordist.network import Network
from colordist.run_folder import RunFolder
from colordist.tasks.autoencoder import AutoencoderTask
from colordist.tasks.cgan import CGANTask
from colordist.tasks.task import Task
from colordist.tracking import JsonLines, Terminal, Tracker, Trackers, WandB
from colordist.trainer import Trainer


def build_trainer(config: Config, folder: RunFolder) -> Trainer:
    """Everything that a run needs, on this process; continued from its newest checkpoint, if there is one."""
    engine = Engine(config.train.precision, deterministic=config.train.deterministic)
    batch_arithmetic(config.train, engine.world_size)
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, precision=engine.precision))
    source = build_source(config.data, engine)
    task = build_task(config)
    engine.prepare(task)
    state = checkpoint.load_newest(folder.checkpoints, engine.device)
    train = load(source.train, engine.device, "training images", quiet=not engine.is_main)
    engine.together(lambda: start_folder(config, folder), here=engine.is_main)
    return Trainer(
        config=config,
        folder=folder,
        engine=engine,
        task=task,
        loader=Loader(
            images=train,
            plan=Plan(config.seed, len(train), config.train.global_batch_size, config.data.flip),
            color_space=ColorSpace(config.model.color_space),
            dtype=engine.dtype,
            micro_batch_size=config.train.micro_batch_size,
            rank=engine.rank,
            world_size=engine.world_size,
        ),
        examiner=build_examiner(config.model.color_space, source, engine),
        tracker=build_tracker(config, folder, engine, -1 if state is None else state["step"]),
        median_ab=median_ab(train.split(1024)),
        state=state,
    )


def build_source(config: DataConfig, engine: Engine) -> Source:
    """The images. What has to be fetched or decoded is, by one process a machine, while the others wait."""
    if config.source != "synthetic":  # which has nothing to fetch
        engine.together(lambda: open_source(config), here=engine.is_first_on_machine)
    return open_source(config)


def open_source(config: DataConfig) -> Source:
    """The images of one config. Raises UserError where they can't be had."""
    match config.source:
        case "synthetic":
            from colordist.data.synthetic import synthetic

            return synthetic(config.seed, config.image_size, config.train_images, config.test_images)
        case "cifar10":
            from colordist.data.cifar10 import cifar10, download

            download(Path(config.root))
            return cifar10(Path(config.root), config.class_names, config.image_size)
        case "folder":
            from colordist.data.folder import folder

            return folder(Path(config.root), config.class_names, config.image_size, cache_folder())


def cache_folder() -> Path:
    """Where decoded images are kept for the next start."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "colordist"


def build_task(config: Config) -> Task:
    """The task with its networks. The same weights on every process: they depend on the seed alone."""
    generator = Network(
        seeded(config.seed, lambda: build_generator(config.model)),
        config.optimizer.generator,
        config.train.steps,
        ema_images=config.train.ema_images,
    )
    if config.task == "autoencoder":
        return AutoencoderTask(generator, config.loss.pixel)
    channels = ColorSpace(config.model.color_space).channels
    discriminator = Network(
        # Another seed than the generator's, so that changing one network leaves the other's weights as they are.
        seeded(config.seed + 1, lambda: build_discriminator(config.discriminator, channels)),
        config.optimizer.discriminator,
        config.train.steps,
    )
    return CGANTask(generator, discriminator, config.loss)


def seeded(seed: int, make: Callable[[], nn.Module]) -> nn.Module:
    """Make a module whose random weights depend on the seed and on nothing else."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def build_examiner(color_space: Literal["lab", "rgb"], source: Source, engine: Engine) -> Examiner:
    """What scores a network, on the test split."""
    objects = None
    if isinstance(source.test, MarkedSplit):
        masks = np.stack([source.test.objects(index) for index in range(len(source.test))])
        objects = torch.from_numpy(masks).to(engine.device)
    truth = load(source.test, engine.device, "test images", quiet=not engine.is_main)
    return Examiner(truth, objects, METRICS, ColorSpace(color_space), engine)


def evaluate_snapshot(folder: Path, data: DataConfig) -> Evaluation | None:
    """Score a run's newest snapshot on some data, on all processes together. None on all but the first."""
    generator, model, about = snapshot.read(snapshot.latest(folder))
    engine = Engine("fp32", deterministic=False)
    try:
        source = build_source(data, engine)
        examiner = build_examiner(model.color_space, source, engine)
        train = load(source.train, engine.device, "training images", quiet=not engine.is_main)
        references = examiner.references(median_ab(train.split(1024)))
        scores = examiner.scores(generator.to(engine.device, engine.dtype))
    finally:
        engine.close()
    images = len(source.test)
    found = Evaluation(str(folder), about["step"], dataclasses.asdict(data), images, scores, references)
    return found if engine.is_main else None


def build_tracker(config: Config, folder: RunFolder, engine: Engine, step: int) -> Tracker:
    """Where numbers go: nowhere but on the first process. step: where the run continues; -1 at the start."""
    if not engine.is_main:
        return Trackers([])
    trackers: list[Tracker] = [JsonLines(folder.metrics_file, step), Terminal(config.train.steps, max(step, 0))]
    if config.track.wandb != "off":
        trackers.append(WandB(config.track, folder.path, dataclasses.asdict(config)))
    return Trackers(trackers)


def start_folder(config: Config, folder: RunFolder) -> None:
    """Make the run folder this run's."""
    folder.refuse_other_run(config)
    folder.write_settings(config)
    folder.unmark()


def describe(config: Config, batches: BatchArithmetic) -> str:
    """The resolved settings, the batch arithmetic, parameters and memory, as text."""
    networks = build_task(config).networks
    counts = [f"{name}: {network.parameter_count():,} parameters" for name, network in networks.items()]
    settings = yaml.safe_dump(dataclasses.asdict(config), sort_keys=False)
    return "\n".join([settings, str(batches), *counts, str(estimate(config, batches))])
