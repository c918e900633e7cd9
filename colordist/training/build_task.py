"""From a config to the task and its networks."""

from pathlib import Path

from torch import nn

from colordist.color import ColorSpace
from colordist.config import Config
from colordist.engine.consistency import check_same
from colordist.engine.network import Network
from colordist.engine.runtime import Engine
from colordist.models import build_decolorizer, build_discriminator, build_generator
from colordist.models.activation_checkpointing import enable_activation_checkpointing
from colordist.models.seeding import seeded
from colordist.tasks.autoencoder import AutoencoderTask
from colordist.tasks.base import NetworkSpec, Task
from colordist.tasks.cgan import CGANTask
from colordist.tasks.cyclegan import CycleGANTask
from colordist.tasks.image_buffer import empty_buffer
from colordist.training.initial_weights import load_initial_weights


def build_task(config: Config) -> Task:
    """The task with its modules. The same weights on every process: they depend on the seed alone."""
    generator = seeded(config.seed, lambda: build_generator(config.model))
    match config.task:
        case "autoencoder":
            return AutoencoderTask(generator, config.loss.pixel)
        case "cgan":
            return build_cgan(config, generator)
        case "cyclegan":
            return build_cyclegan(config, generator)


def build_cgan(config: Config, generator: nn.Module) -> CGANTask:
    """The task ``cgan`` with its other network."""
    channels, offset = ColorSpace(config.model.color_space).channels, config.loss.adversarial == "bce"
    # Another seed than the generator's, so that changing one network leaves the other's weights as they are.
    discriminator = seeded(config.seed + 1, lambda: build_discriminator(config.discriminator, channels, offset=offset))
    return CGANTask(generator, discriminator, config.loss)


def build_cyclegan(config: Config, generator: nn.Module) -> CycleGANTask:
    """The task ``cyclegan`` with its other networks. Networks of a kind share their settings."""

    def discriminator(seed: int, channels: int) -> nn.Module:
        return seeded(seed, lambda: build_discriminator(config.discriminator, channels, conditional=False))

    modules = {
        "generator": generator,
        "decolorizer": seeded(config.seed + 2, lambda: build_decolorizer(config.model)),
        "discriminator": discriminator(config.seed + 1, channels=3),
        "grey_discriminator": discriminator(config.seed + 3, channels=1),
    }
    slots, size, batch = config.loss.image_buffer_slots, config.data.image_size, config.train.global_batch_size
    channels = {"discriminator": 3, "grey_discriminator": 1} if slots else {}
    buffers = {name: empty_buffer(batch, slots, count, size) for name, count in channels.items()}
    return CycleGANTask(modules, buffers, ColorSpace(config.model.color_space), config.loss)


def build_networks(task: Task, config: Config) -> dict[str, Network]:
    """The task's networks with optimizer, learning-rate schedule and EMA, by name."""
    networks = {name: _build_network(spec, config) for name, spec in task.networks.items()}
    if config.train.activation_checkpointing:
        for network in networks.values():
            enable_activation_checkpointing(network.module)  # the EMA copy is for inference: nothing to recompute
    return networks


def _build_network(spec: NetworkSpec, config: Config) -> Network:
    train = config.train
    optimizer = config.optimizer.generator if spec.optimizer == "generator" else config.optimizer.discriminator
    if not spec.ema:
        return Network(spec.module, optimizer, train.steps)
    return Network(
        spec.module, optimizer, train.steps, train.ema_images, train.freeze, config.optimizer.generator.lr_scales
    )


def initialize(generator: Network, config: Config, engine: Engine) -> str | None:
    """Load the initial weights that the config names. Returns their digest; None where it names none."""
    train = config.train
    if train.init_from is None:
        return None
    source = Path(train.init_from)
    digest = engine.on_all_ranks(
        lambda: load_initial_weights(generator, config.model, source, strict=train.init_strict)
    )
    check_same(engine, "begins with other weights", digest, "give all machines the same snapshot")
    return digest
