"""The trainer compared with a bare PyTorch loop: time of a step.

    python benchmarks/step.py --json step.json
    python benchmarks/step.py --processes 1 --set train.precision=bf16 train.compile=default

The bare loop (``BareLoop``) is written by hand for this one config: the same networks, losses, flips, clipping,
learning rates, EMA weights and precision, in plain PyTorch. It has no checkpoints, no consistency checks, no skipping
of Inf or NaN gradients, no gradient norms unless they are clipped. On several processes each network is wrapped in
DistributedDataParallel, and frozen while the other one is trained.

The trainer is ``Trainer.advance``, with its log, signals and failure detector. Both train on the same images; the ratio
is ``bare / trainer``, the fraction of the bare loop's speed that the trainer reaches: above 1, it is faster.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch
import torch.distributed as dist
import torch.nn.functional as F
from harness import Arm, Training, main
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from colordist.color import ColorSpace
from colordist.config import Config
from colordist.data.loader import ResidentLoader
from colordist.engine.runtime import Engine
from colordist.evaluation.build_source import build_source
from colordist.models.spectral_norm import iterate_spectral_norm
from colordist.registry import make_config
from colordist.tasks.base import NetworkSpec
from colordist.training.build import build_loader
from colordist.training.build_task import build_task


class BareLoop:
    """Trains the networks of ``configs/cgan.yaml``, written out."""

    def __init__(self, config: Config, networks: Mapping[str, NetworkSpec], images: Tensor, precision: str) -> None:
        """images: uint8 [N, 3, H, W], on the device to train on. Raises ValueError for an unsupported config."""
        require_supported(config)
        self.config, self.images, self.device = config, images, images.device
        self.rank, self.world_size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        self.half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
        self.color_space = ColorSpace(config.model.color_space)
        self.generator, self.discriminator = (
            networks[name].module.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            for name in ("generator", "discriminator")
        )
        self.ema = copy.deepcopy(self.generator).requires_grad_(False)
        if config.train.compile != "off":
            mode = "reduce-overhead" if config.train.compile == "graphs" else None
            self.generator.compile(mode=mode, dynamic=False)
            self.discriminator.compile(mode=mode, dynamic=False)
        self.wrapped_generator, self.wrapped_discriminator = map(self._wrap, (self.generator, self.discriminator))
        self.optimizers = {
            name: torch.optim.Adam(module.parameters(), lr=0.0, betas=(each.beta1, each.beta2), fused=True)
            for name, module in (("generator", self.generator), ("discriminator", self.discriminator))
            for each in [config.optimizer[name]]
        }
        self.scalers = {
            name: torch.amp.GradScaler(self.device.type, enabled=precision == "fp16") for name in self.optimizers
        }
        self.random = torch.Generator().manual_seed(config.seed)
        self.order, self.next = torch.empty(0, dtype=torch.int64), 0
        self.sums = torch.zeros(4, device=self.device)

    def _wrap(self, module: nn.Module) -> nn.Module:
        if self.world_size == 1:
            return module
        return DistributedDataParallel(module, broadcast_buffers=False, gradient_as_bucket_view=True)

    def batch(self) -> tuple[Tensor, Tensor]:
        """This process's share of the next images: grey and colours."""
        size = self.config.train.global_batch_size
        if self.next + size > len(self.order):
            self.order, self.next = torch.randperm(len(self.images), generator=self.random), 0
        index = self.order[self.next : self.next + size]
        flip = torch.rand(size, generator=self.random) < 0.5
        self.next += size
        mine = slice(self.rank * size // self.world_size, (self.rank + 1) * size // self.world_size)
        rgb = self.images[index[mine].to(self.device, non_blocking=True)]
        mirrored = flip[mine].to(self.device, non_blocking=True)[:, None, None, None]
        return self.color_space.split(torch.where(mirrored, rgb.flip(-1), rgb), torch.float32)

    def advance(self, step: int) -> None:
        """Train both networks for one step."""
        task, train = self.config.task, self.config.train
        grey, target = self.batch()
        iterate_spectral_norm(self.discriminator)
        with torch.autocast(self.device.type, dtype=self.half, enabled=self.half is not None):
            color = self.wrapped_generator(grey)
            seen = torch.cat([target, color.detach()]), torch.cat([grey, grey])
            real, fake = self.wrapped_discriminator(seen[1], seen[0]).float().chunk(2)
        real_loss = F.binary_cross_entropy_with_logits(real, torch.full_like(real, 1 - task.label_smoothing))
        fake_loss = F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake))
        self.update("discriminator", self.discriminator, (real_loss + fake_loss) / 2, step)

        self.discriminator.requires_grad_(False)
        with torch.autocast(self.device.type, dtype=self.half, enabled=self.half is not None):
            logits = self.discriminator(grey, color).float()
        pixel = F.l1_loss(color.float(), target)
        adversarial = F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
        total = task.pixel_weight * pixel + task.adversarial_weight * adversarial
        self.update("generator", self.generator, total, step)
        self.discriminator.requires_grad_(True)

        images = (step + 1) * train.global_batch_size
        decay = 0.5 ** (train.global_batch_size / min(train.ema_images, 0.05 * images))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.ema.parameters()), list(self.generator.parameters()), 1 - decay)
        self.sums += torch.stack([real_loss, fake_loss, pixel, adversarial]).detach()
        if (step + 1) % self.config.log.every == 0:
            print(step + 1, *(self.sums / self.config.log.every).tolist())
            self.sums.zero_()

    def update(self, name: str, module: nn.Module, loss: Tensor, step: int) -> None:
        """Train a network for one step."""
        optimizer, scaler = self.optimizers[name], self.scalers[name]
        config = self.config.optimizer[name]
        warm = config.warmup_steps
        rate = (step + 1) / (warm + 1) if step < warm else 1 - (step - warm) / (self.config.train.steps - warm)
        for group in optimizer.param_groups:
            group["lr"] = config.lr * rate
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        if config.clip_norm is not None:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(module.parameters(), config.clip_norm)
        scaler.step(optimizer)
        scaler.update()


def require_supported(config: Config) -> None:
    """Raise ValueError for a config whose step the bare loop doesn't compute."""
    free = {"warmup_steps": 0, "pixel_weight": 1.0, "adversarial_weight": 1.0, "label_smoothing": 0.0}
    expected = {"name": "cgan", "gradient_loss_weight": 0.0, **free}
    train = config.train
    if (
        config.task.name != "cgan"
        or replace(config.task, **free) != make_config({"task": expected}).task
        or {each.schedule for each in config.optimizer.values()} != {"linear"}
        or train.micro_batch_size is not None
        or train.activation_checkpointing
        or train.freeze
        or config.optimizer["generator"].lr_scales
        or config.model.noise_size
    ):
        raise ValueError("the bare loop is written for configs/cgan.yaml alone")


@contextmanager
def bare(config: Config) -> Iterator[Training]:
    """The bare loop, on the device and with the threads that the trainer would choose."""
    engine = Engine(config.train.precision)
    task = build_task(config)
    loader = build_loader(config, task, build_source(config.data, engine), engine)
    assert isinstance(loader, ResidentLoader)
    yield Training(BareLoop(config, task.networks, loader.images, engine.precision).advance)
    engine.close()


ARMS = {"trainer": Arm(), "bare": Arm(bare)}

if __name__ == "__main__":
    main(__doc__, ARMS, settings={"log.every": 5}, processes=(1, 2), rounds=10)
