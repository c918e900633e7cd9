"""From a config to the objects that a run is made of: one small function a part."""

import os
import zlib
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from colordist import snapshot
from colordist.color import ColorSpace
from colordist.config import BatchArithmetic, Config, DataConfig, UserError
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
from colordist.trainer import Meter, Trainer, restore


def build_trainer(config: Config, folder: RunFolder) -> Trainer:
    """Everything that a run needs, on this process; continued from its newest checkpoint, if there is one."""
    train = config.train
    engine = Engine(precision_of(config, folder), deterministic=train.deterministic, tf32=train.tf32)
    config = replace(config, train=replace(config.train, precision=engine.precision))
    source = build_source(config.data, engine)
    task = build_task(config)
    engine.prepare(task)
    images = load(source.train, engine.device, "training images", quiet=not engine.is_main)
    examiner = build_examiner(config.model.color_space, source, engine)
    digests = f"{image_digest(images)} {image_digest(examiner.truth)}"
    engine.together(lambda: start_folder(config, folder, digests), here=engine.is_main)
    meter = Meter(config.train.global_batch_size)
    start = restore(load_newest(folder, engine), engine, meter)
    return Trainer(
        config=config,
        folder=folder,
        engine=engine,
        task=task,
        loader=build_loader(config, images, engine),
        examiner=examiner,
        tracker=build_tracker(config, folder, engine, start),
        meter=meter,
        start=start,
    )


def precision_of(config: Config, folder: RunFolder) -> str:
    """The number format to ask for: `auto` is resolved once, when the run begins."""
    precision = config.train.precision
    return folder.settings()["train"]["precision"] if precision == "auto" and folder.state != "new" else precision


def load_newest(folder: RunFolder, engine: Engine) -> dict[str, Any] | None:
    """The state in the newest checkpoint that the first process sees, on every process; None where there is none."""
    newest = engine.from_main(checkpoint.newest(folder.checkpoints) if engine.is_main else None)
    if newest is None:
        return None
    states: list[dict[str, Any]] = []
    engine.together(lambda: states.append(checkpoint.load(newest)))
    return states[0]


def build_loader(config: Config, images: Tensor, engine: Engine) -> Loader:
    """What gives this process its part of each step. images: the training split, uint8 [N, 3, H, W]."""
    return Loader(
        images=images,
        plan=Plan(config.seed, len(images), config.train.global_batch_size, config.data.flip),
        color_space=ColorSpace(config.model.color_space),
        dtype=engine.dtype,
        micro_batch_size=config.train.micro_batch_size,
        rank=engine.rank,
        world_size=engine.world_size,
    )


def build_source(config: DataConfig, engine: Engine) -> Source:
    """The images. What has to be fetched or decoded is done by one process, while the others wait.

    Then once on each other machine: where the disk is shared, that finds everything done.
    """
    opened: list[Source] = []
    if config.source != "synthetic":  # which has nothing to fetch
        engine.together(lambda: opened.append(open_source(config)), here=engine.is_main)
        first_elsewhere = engine.is_first_on_machine and not engine.is_main
        engine.together(lambda: opened.append(open_source(config)), here=first_elsewhere)
    return opened[0] if opened else open_source(config)


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
    if torch.equal(truth[:, 0], truth[:, 1]) and torch.equal(truth[:, 1], truth[:, 2]):
        raise UserError(f"no test image of data.source {source.name} has any colour, so there is nothing to score")
    return Examiner(truth, objects, METRICS, ColorSpace(color_space), engine)


def evaluate_snapshot(folder: Path, data: DataConfig) -> Evaluation | None:
    """Score a run's newest snapshot on some data, on all processes together. None on all but the first."""
    generator, model, about = snapshot.read(snapshot.latest(folder))
    if data.image_size % 2**model.depth:
        fitting = data.image_size // 2**model.depth * 2**model.depth
        raise UserError(f"data.image_size is {data.image_size}, which this network can't halve: try {fitting or 16}")
    engine = Engine("fp32")
    source = build_source(data, engine)
    examiner = build_examiner(model.color_space, source, engine)
    train = load(source.train, engine.device, "training images", quiet=not engine.is_main)
    references = examiner.references(median_ab(train.split(1024)))
    scores = examiner.scores(generator.to(engine.device, engine.dtype))
    engine.close()
    images = len(source.test)
    found = Evaluation(str(folder), about["step"], asdict(data), images, scores, references)
    return found if engine.is_main else None


def build_tracker(config: Config, folder: RunFolder, engine: Engine, start: int) -> Tracker:
    """Where numbers go: nowhere but on the first process. start: the step that the run begins or continues with."""
    trackers: list[Tracker] = []

    def make() -> None:
        trackers.append(JsonLines(folder.metrics_file, start))
        trackers.append(Terminal(config.train.steps, start))
        if config.track.wandb != "off":
            trackers.append(WandB(config.track, folder.path, asdict(config)))

    engine.together(make, here=engine.is_main)
    return Trackers(trackers)


def image_digest(images: Tensor) -> str:
    """Eight hexadecimal digits that stand for a split's images and their order."""
    return f"{zlib.crc32(images.cpu().numpy().data):08x}"


def start_folder(config: Config, folder: RunFolder, images: str) -> None:
    """Make the run folder this run's. images: what stands for its images."""
    folder.refuse_other_run(config)
    folder.refuse_lost_parts()
    folder.write_settings(config)
    folder.refuse_other_images(images)
    folder.unmark()


def describe(config: Config, batches: BatchArithmetic) -> str:
    """The resolved settings, the batch arithmetic, parameters and memory, as text."""
    networks = build_task(config).networks
    counts = [f"{name}: {network.parameter_count():,} parameters" for name, network in networks.items()]
    settings = yaml.safe_dump(asdict(config), sort_keys=False)
    return "\n".join([settings, str(batches), *counts, str(estimate(config, batches))])
