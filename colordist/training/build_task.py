"""From a config to the task and its networks."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from colordist.color import ColorSpace
from colordist.config import Config
from colordist.engine.consistency import check_same
from colordist.engine.network import Network
from colordist.engine.runtime import Engine
from colordist.models import build_decolorizer, build_discriminator, build_generator
from colordist.models.activation_checkpointing import enable_activation_checkpointing
from colordist.tasks.autoencoder import AutoencoderTask
from colordist.tasks.base import Task
from colordist.tasks.cgan import CGANTask
from colordist.tasks.cyclegan import CycleGANTask
from colordist.tasks.image_buffer import empty_buffer
from colordist.training.initial_weights import load_initial_weights

M = TypeVar("M", bound=nn.Module)


def initialize(task: Task, config: Config, engine: Engine) -> str | None:
    """Let the generator begin with the weights that the config names. Returns what stands for them; None for none."""
    train, digests = config.train, list[str]()
    if train.init_from is None:
        return None
    generator, source = task.networks[task.generators[0]], Path(train.init_from)
    engine.run_on_all_ranks(
        lambda: digests.append(load_initial_weights(generator, config.model, source, strict=train.init_strict))
    )
    check_same(engine, "begins with other weights", digests[0], "give all machines the same snapshot")
    return digests[0]


def build_task(config: Config) -> Task:
    """The task with its networks. The same weights on every process: they depend on the seed alone."""
    generator = Network(
        seeded(config.seed, lambda: build_generator(config.model)),
        config.optimizer.generator,
        config.train.steps,
        ema_images=config.train.ema_images,
        frozen=config.train.freeze,
        lr_scales=config.optimizer.generator.lr_scales,
    )
    task: Task
    match config.task:
        case "autoencoder":
            task = AutoencoderTask(generator, config.loss.pixel)
        case "cgan":
            task = build_cgan(config, generator)
        case "cyclegan":
            task = build_cyclegan(config, generator)
    if config.train.activation_checkpointing:
        for network in task.networks.values():
            enable_activation_checkpointing(network.module)
    return task


def build_cgan(config: Config, generator: Network) -> CGANTask:
    """The task ``cgan`` with its other network."""
    channels, offset = ColorSpace(config.model.color_space).channels, config.loss.adversarial == "bce"
    discriminator = Network(
        # Another seed than the generator's, so that changing one network leaves the other's weights as they are.
        seeded(config.seed + 1, lambda: build_discriminator(config.discriminator, channels, offset=offset)),
        config.optimizer.discriminator,
        config.train.steps,
    )
    return CGANTask(generator, discriminator, config.loss)


def build_cyclegan(config: Config, generator: Network) -> CycleGANTask:
    """The task ``cyclegan`` with its other networks. The two of a kind share their settings."""
    train, optimizer = config.train, config.optimizer

    def discriminator(seed: int, channels: int) -> Network:
        judge = seeded(seed, lambda: build_discriminator(config.discriminator, channels, conditional=False))
        return Network(judge, optimizer.discriminator, train.steps)

    decolorizer = seeded(config.seed + 2, lambda: build_decolorizer(config.model))
    networks = {
        "generator": generator,
        "decolorizer": Network(decolorizer, optimizer.generator, train.steps),
        "discriminator": discriminator(config.seed + 1, channels=3),
        "grey_discriminator": discriminator(config.seed + 3, channels=1),
    }
    slots, size = config.loss.image_buffer_slots, config.data.image_size
    judged = {"discriminator": 3, "grey_discriminator": 1} if slots else {}
    buffers = {name: empty_buffer(train.global_batch_size, slots, channels, size) for name, channels in judged.items()}
    return CycleGANTask(networks, buffers, ColorSpace(config.model.color_space), config.loss)


def seeded(seed: int, make: Callable[[], M]) -> M:
    """Make a module whose random weights depend on the seed and on nothing else."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()
