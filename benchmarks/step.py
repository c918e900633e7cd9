"""The trainer beside a bare loop: how much of the speed that PyTorch has to give does the trainer reach?

    python benchmarks/step.py --json step.json
    python benchmarks/step.py --processes 1 --set train.precision=bf16 train.compile=default

The bare loop (``BareLoop``) is what one writes by hand for this one config and nothing else: the same networks, losses,
flips, clipping, learning rates, averaged weights and precision, in plain PyTorch. It has no checkpoints, no agreement
between processes, no skipping of infinite gradients, no gradient norms unless they are clipped. On several processes
each network is wrapped in DistributedDataParallel, and frozen while the other one learns.

The trainer is all of it: ``Trainer.advance``, with its log, signals and failure detector. Both train on the same
images; told is ``bare / trainer``, the share of the bare loop's pace that the trainer reaches: above 1, it is faster.
"""

import copy
from collections.abc import Iterator
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
from colordist.models import build_discriminator, build_generator
from colordist.models.blocks import iterate_spectral_norm
from colordist.training.build import build_loader, build_source


class BareLoop:
    """Trains the networks of ``configs/cgan.yaml``, written out."""

    def __init__(self, config: Config, images: Tensor, precision: str) -> None:
        """images: uint8 [N, 3, H, W], on the device where training is to be. Raises ValueError for another config's."""
        refuse_other_mathematics(config)
        self.config, self.images, self.device = config, images, images.device
        self.rank, self.world_size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        self.half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
        self.color_space = ColorSpace(config.model.color_space)
        torch.manual_seed(config.seed)
        self.generator = self._placed(build_generator(config.model))
        self.discriminator = self._placed(build_discriminator(config.discriminator, self.color_space.channels))
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        if config.train.compile != "off":
            mode = "reduce-overhead" if config.train.compile == "graphs" else None
            self.generator.compile(mode=mode, dynamic=False)
            self.discriminator.compile(mode=mode, dynamic=False)
        self.called_generator, self.called_discriminator = (
            self._wrapped(self.generator),
            self._wrapped(self.discriminator),
        )
        self.optimizers = {
            name: torch.optim.Adam(module.parameters(), lr=0.0, betas=(each.beta1, each.beta2), fused=True)
            for name, module, each in (
                ("generator", self.generator, config.optimizer.generator),
                ("discriminator", self.discriminator, config.optimizer.discriminator),
            )
        }
        self.scalers = {
            name: torch.amp.GradScaler(self.device.type, enabled=precision == "fp16") for name in self.optimizers
        }
        self.random = torch.Generator().manual_seed(config.seed)
        self.order, self.next = torch.empty(0, dtype=torch.int64), 0
        self.sums = torch.zeros(4, device=self.device)

    def _placed(self, module: nn.Module) -> nn.Module:
        return module.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def _wrapped(self, module: nn.Module) -> nn.Module:
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
        """Train both networks once."""
        loss, train = self.config.loss, self.config.train
        grey, target = self.batch()
        iterate_spectral_norm(self.discriminator)
        with torch.autocast(self.device.type, dtype=self.half, enabled=self.half is not None):
            color = self.called_generator(grey)
            seen = torch.cat([target, color.detach()]), torch.cat([grey, grey])
            real, fake = self.called_discriminator(seen[1], seen[0]).float().chunk(2)
        real_loss = F.binary_cross_entropy_with_logits(real, torch.full_like(real, 1 - loss.label_smoothing))
        fake_loss = F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake))
        self.learn("discriminator", self.discriminator, (real_loss + fake_loss) / 2, step)

        self.discriminator.requires_grad_(False)
        with torch.autocast(self.device.type, dtype=self.half, enabled=self.half is not None):
            judged = self.discriminator(grey, color).float()
        pixel = F.l1_loss(color.float(), target)
        adversarial = F.binary_cross_entropy_with_logits(judged, torch.ones_like(judged))
        self.learn("generator", self.generator, loss.pixel_weight * pixel + loss.adversarial_weight * adversarial, step)
        self.discriminator.requires_grad_(True)

        images = (step + 1) * train.global_batch_size
        decay = 0.5 ** (train.global_batch_size / min(train.ema_images, 0.05 * images))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.generator.parameters()), 1 - decay)
        self.sums += torch.stack([real_loss, fake_loss, pixel, adversarial]).detach()
        if (step + 1) % self.config.log.every == 0:
            print(step + 1, *(self.sums / self.config.log.every).tolist())
            self.sums.zero_()

    def learn(self, name: str, module: nn.Module, loss: Tensor, step: int) -> None:
        """One update."""
        optimizer, scaler = self.optimizers[name], self.scalers[name]
        config = getattr(self.config.optimizer, name)
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


def refuse_other_mathematics(config: Config) -> None:
    """Raise ValueError for what the bare loop doesn't do: then its time would be of no meaning."""
    usual, loss, train = Config(), config.loss, config.train
    plain = replace(loss, warmup_steps=0, pixel_weight=1.0, adversarial_weight=1.0, label_smoothing=0.0)
    schedules = {config.optimizer.generator.schedule, config.optimizer.discriminator.schedule}
    if (
        config.task != "cgan"
        or plain != replace(usual.loss, warmup_steps=0, gradient_loss_weight=0.0)
        or schedules != {"linear"}
        or train.micro_batch_size is not None
        or train.activation_checkpointing
        or train.freeze
        or config.optimizer.generator.lr_scales
        or config.model.noise
    ):
        raise ValueError("the bare loop is written for configs/cgan.yaml alone")


@contextmanager
def bare(config: Config) -> Iterator[Training]:
    """The bare loop, on the device and with the threads that the trainer would choose."""
    engine = Engine(config.train.precision)
    loader = build_loader(config, build_source(config.data, engine), engine)
    assert isinstance(loader, ResidentLoader)
    yield Training(BareLoop(config, loader.images, engine.precision).advance)
    engine.close()


ARMS = {"trainer": Arm(), "bare": Arm(bare)}

if __name__ == "__main__":
    main(__doc__, ARMS, settings={"log.every": 5}, processes=(1, 2), rounds=10)
