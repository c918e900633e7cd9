"""A step as public scripts with Accelerate have it, compared with ours: its time and its communication.

    python benchmarks/usual.py --json usual.json
    python benchmarks/usual.py --processes 1

*Usual* is what one writes with Accelerate: ``prepare(G, D, optimizer_g, optimizer_d)``, both networks called through
DistributedDataParallel in both phases, the discriminator not frozen in the generator's. Its images are JPEGs that a
``DataLoader`` opens with PIL and mirrors with torchvision in worker processes, and both losses are asked for by
``.item()`` after every step. *Ours* is ``Trainer.advance`` on the same files, all decoded once, before that; it also
keeps EMA weights and gradient norms. Networks, losses, optimizers and colour space are the same. CPUs only.

The ratio is ``usual / ours``, of the time of a step: above 1, ours is faster. On several processes also the bytes of
gradients that a step all-reduces.
"""

import argparse
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator
from harness import Arm, Training, load, main, open_trainer, traffic
from loading import Files, write_images
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler
from torchvision.transforms.v2.functional import horizontal_flip

from colordist.color import ColorSpace
from colordist.config import Config
from colordist.data.batch import Batch
from colordist.data.sampler import UNIFORMS
from colordist.engine.network import Network
from colordist.engine.runtime import Engine
from colordist.models.spectral_norm import iterate_spectral_norm
from colordist.tasks.losses import bce, gradient_difference_loss, pixel_distance
from colordist.training.build_task import build_networks, build_task

WORKERS = 2  # that decode for the usual step, a process


Step = Callable[[int], tuple[Tensor, Tensor]]


def usual_step(config: Config, batches: Callable[[int], Batch]) -> tuple[Step, dict[str, Network]]:
    """The step, which returns both losses, and the networks it trains. batches: by step."""
    accelerator, task = Accelerator(cpu=True), config.task
    networks = build_networks(build_task(config), config)
    g, d = networks["generator"], networks["discriminator"]
    for network in (g, d):
        network.module.to(memory_format=torch.channels_last)
    prepared = accelerator.prepare(g.module, d.module, g.optimizer, d.optimizer)
    generator, discriminator, optimizer_g, optimizer_d = prepared

    def generator_loss(grey: Tensor, target: Tensor, color: Tensor) -> Tensor:
        total = task.pixel_weight * pixel_distance(task.pixel, color, target)
        if task.gradient_loss_weight:
            total = total + task.gradient_loss_weight * gradient_difference_loss(task.pixel, color, target)
        return total + task.adversarial_weight * bce(discriminator(grey, color), 1)

    def run(step: int) -> tuple[Tensor, Tensor]:
        batch = batches(step)
        grey, target = batch.grey, batch.target
        for network in (g, d):
            for group in network.optimizer.param_groups:
                group["lr"] = network.learning_rate(step)
        color = generator(grey)

        iterate_spectral_norm(d.module)
        seen = torch.cat([target, color.detach()])
        real, fake = discriminator(torch.cat([grey, grey]), seen).chunk(2)
        optimizer_d.zero_grad()
        loss_d = (bce(real, 1 - task.label_smoothing) + bce(fake, 0)) / 2
        accelerator.backward(loss_d)
        optimizer_d.step()

        optimizer_g.zero_grad()
        loss_g = generator_loss(grey, target, color)
        accelerator.backward(loss_g)
        optimizer_g.step()
        return loss_d, loss_g

    return run, networks


class Mirrored(Files):
    """Files with random horizontal flips."""

    def __getitem__(self, index: int) -> Tensor:
        image = super().__getitem__(index)
        return horizontal_flip(image) if torch.rand(()) < 0.5 else image


def from_files(config: Config, rank: int, world_size: int) -> Iterator[Batch]:
    """A process's batches of a DataLoader, epoch after epoch."""
    files = Mirrored(Path(str(config.data.root)) / "train")
    count = config.train.global_batch_size // world_size
    sampler = DistributedSampler(files, world_size, rank, drop_last=True)
    # Workers prefetch at most a batch each while the other arm trains.
    loader = DataLoader(files, count, sampler=sampler, num_workers=WORKERS, persistent_workers=True, prefetch_factor=1)
    unused = torch.zeros(count, UNIFORMS), torch.zeros(count, 1, 0)
    while True:
        for rgb in loader:
            if len(rgb) == count:
                grey, target = ColorSpace(config.model.color_space).split(rgb, torch.float32)
                yield Batch(grey, target, *unused, grey, torch.arange(count))


@contextmanager
def usual(config: Config) -> Iterator[Training]:
    """The usual step."""
    engine = Engine("fp32")  # makes the process group, and sets threads as the trainer does
    batches = from_files(config, engine.rank, engine.world_size)
    step, _ = usual_step(config, lambda _: next(batches))

    def advance(number: int) -> None:
        for loss in step(number):
            loss.item()

    yield Training(advance, lambda number: traffic(advance, number))
    engine.close()


@contextmanager
def ours(config: Config) -> Iterator[Training]:
    """The trainer."""
    with open_trainer(config) as trainer:
        yield Training(trainer.advance, lambda number: traffic(trainer.advance, number))


def images(options: argparse.Namespace, folder: Path) -> Mapping[str, object]:
    """Write the JPEGs."""
    os.environ["ACCELERATE_USE_CPU"] = "true"  # the usual step runs on no GPU
    for part, count in (("train", 2000), ("test", 10)):
        write_images(folder / part, count, load(options).data.image_size)
    return {"data.root": str(folder)}


ARMS = {"ours": Arm(ours), "usual": Arm(usual)}

if __name__ == "__main__":
    settings = {"data.source": "folder", "data.root": ".", "log.every": 10, "train.precision": "fp32"}
    main(__doc__, ARMS, settings=settings, prepare=images, processes=(1, 2), steps=10)
