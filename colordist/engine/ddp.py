"""A network as DistributedDataParallel runs it: whole on every process, its gradients averaged over all of them."""

import warnings
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from colordist.engine.network import Network


class DDPStrategy:
    """Averages gradients over all processes while backward still runs: each of them once a step."""

    def __init__(self, network: Network, accelerator: Accelerator) -> None:
        self.network = network
        self.accelerator = accelerator
        with warnings.catch_warnings():  # torch 2.15 renames broadcast_buffers, accelerate 1.15 can't yet
            warnings.simplefilter("ignore", FutureWarning)
            self.trainable: nn.Module = accelerator.prepare(network.module)
        self.frozen: Callable[..., Tensor] = network.module
        # A scaler of its own: an overflow in one network says nothing about the other.
        half = accelerator.mixed_precision == "fp16"
        self.scaler = torch.amp.GradScaler(accelerator.device.type, enabled=half)
        self.bytes_sent: int | None = 0
        if isinstance(self.trainable, DistributedDataParallel):
            self.trainable.register_comm_hook(None, self._average)

    def _average(self, _: None, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:  # type: ignore[name-defined]
        """What DDP does by itself, counted."""
        buffer = bucket.buffer()
        self.bytes_sent = (self.bytes_sent or 0) + buffer.numel() * buffer.element_size()
        return allreduce_hook(dist.group.WORLD, bucket)  # type: ignore[arg-type]

    def begin_phase(self, step: int) -> None:
        """Get ready to learn in a step."""
        self.network.begin_phase(step)
        self.bytes_sent = 0

    def gradient_sync(self, *, last: bool) -> AbstractContextManager[None]:
        """Gradients travel with the last micro-batch of a turn; those before are summed up at home."""
        return nullcontext() if last else self.accelerator.no_sync(self.trainable)

    def backward(self, loss: Tensor) -> None:
        """Add a loss's gradients to the turn's."""
        self.scaler.scale(loss).backward()

    def update(self) -> dict[str, Tensor]:
        """Clip and step where the gradient is finite."""
        scaler, optimizer = self.scaler, self.network.optimizer
        parameters, limit = list(self.network.module.parameters()), self.network.config.clip_norm
        scaler.unscale_(optimizer)
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if limit is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
        log = {"gradient_norm": norm, "skipped": (~norm.isfinite()).float()}
        # Fused Adam looks at this on the device, so nobody waits to know. `scaler.step` would put its own finding
        # there, which doesn't know of a norm that overflows where no single gradient does.
        optimizer.grad_scale, optimizer.found_inf = None, log["skipped"]  # type: ignore[attr-defined]
        optimizer.step()
        scaler.update()
        if scaler.is_enabled():
            log["loss_scale"] = scaler._get_scale_async().clone()  # type: ignore[union-attr]  # `get_scale` would wait
        return log

    def update_ema(self, images: int, batch: int) -> None:
        """Let the averaged copy follow."""
        if self.network.ema is not None:
            self.network.ema.update(self.network.module, images, batch)

    def replicated(self) -> dict[str, Iterable[Tensor]]:
        """All of it."""
        network, state = self.network, self.network.optimizer.state
        parameters = list(network.module.parameters())
        found: dict[str, Iterable[Tensor]] = {
            "weights": network.module.state_dict().values(),
            "optimizer": [state[each][key] for each in parameters if each in state for key in sorted(state[each])],
        }
        if network.ema is not None:
            found["averaged"] = network.ema.module.state_dict().values()
        return found

    def state_dict(self) -> dict[str, Any]:
        """The network's state, and the loss scaler's."""
        return self.network.state_dict() | {"scaler": self.scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict()``."""
        self.network.load_state_dict(state)
        self.scaler.load_state_dict(state["scaler"])
