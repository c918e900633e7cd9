"""DistributedDataParallel: a full copy of the network on every process, gradients averaged by all-reduce."""

import functools
import logging
import warnings
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from colordist.engine.eager import ddp_without_compiler, run_eagerly
from colordist.engine.network import Network

if TYPE_CHECKING:
    from accelerate import Accelerator  # not imported by a dry run, which estimates memory without it

logger = logging.getLogger(__name__)


@functools.cache
def reads_found_inf(kind: type[torch.optim.Optimizer], device: torch.device) -> bool:
    """Whether a fused step on a device changes nothing where ``found_inf`` is 1. Logs it if it does.

    MPS with PyTorch 2.11 and 2.12 ignores the flag. Takes a step with a single weight, and waits for it.
    """
    parameter = torch.zeros(1, device=device, requires_grad=True)
    parameter.grad = torch.ones_like(parameter)
    optimizer = kind([parameter], lr=1.0, fused=True)  # type: ignore[call-arg]
    optimizer.grad_scale, optimizer.found_inf = None, torch.ones((), device=device)  # type: ignore[attr-defined]
    optimizer.step()
    if not any(value.any() for value in (parameter, *optimizer.state[parameter].values())):
        return True
    where = f"on {device.type} with PyTorch {torch.__version__}"
    logger.warning("fused %s ignores found_inf %s: each update waits for the device", kind.__name__, where)
    return False


class DDPStrategy:
    """Overlaps the all-reduce of gradients, one per phase, with backward."""

    cuts_buckets_on_first_backward = True
    skips_on_device = True
    """Whether the optimizer skips an update by a flag on the device, so that the host needn't wait."""

    def __init__(self, network: Network, accelerator: "Accelerator") -> None:
        self.network = network
        self.accelerator = accelerator
        with ddp_without_compiler(), warnings.catch_warnings():
            # torch 2.15 renames broadcast_buffers, accelerate 1.15 can't yet.
            warnings.simplefilter("ignore", FutureWarning)
            # Already on its device; without this argument Accelerate imports DTensor to ask about sharding.
            self.trainable: nn.Module = accelerator.prepare(network.module, device_placement=[False])
        self.frozen: Callable[..., Tensor] = network.module  # with autocast too: prepare patches its forward
        # A loss scaler for each network: an overflow in one says nothing about another.
        half = accelerator.mixed_precision == "fp16"
        self.scaler = torch.amp.GradScaler(accelerator.device.type, enabled=half)
        self.bytes_sent: int | None = 0
        self.skipped_in_a_row = torch.zeros((), device=accelerator.device)
        self.skips_on_device = reads_found_inf(type(network.optimizer), accelerator.device)  # type: ignore[arg-type]
        self._side_stream = torch.cuda.Stream(accelerator.device) if accelerator.device.type == "cuda" else None
        if isinstance(self.trainable, DistributedDataParallel):
            run_eagerly(self.trainable)
            self.trainable.register_comm_hook(None, self._average)

    def _average(self, _: None, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:  # type: ignore[name-defined]
        """DDP's default all-reduce, with its bytes counted.

        On a GPU from a side stream: since PyTorch 2.15 the stream that an all-reduce is started from waits for it,
        which would be that of backward.
        """
        buffer = bucket.buffer()
        self.bytes_sent = (self.bytes_sent or 0) + buffer.numel() * buffer.element_size()
        if self._side_stream is not None:
            self._side_stream.wait_stream(torch.cuda.current_stream(self._side_stream.device))
        with torch.cuda.stream(self._side_stream):
            return allreduce_hook(dist.group.WORLD, bucket)  # type: ignore[arg-type]

    def begin_phase(self, step: int) -> None:
        """Set the step's learning rate, clear the gradients and iterate spectral norms."""
        self.network.begin_phase(step)
        self.bytes_sent = 0

    def gradient_sync(self, *, last: bool) -> AbstractContextManager[None]:
        """All-reduce with the last micro-batch of a phase; accumulate locally before."""
        return nullcontext() if last else self.accelerator.no_sync(self.trainable)

    def backward(self, loss: Tensor) -> None:
        """Accumulate gradients of the scaled loss."""
        self.scaler.scale(loss).backward()

    def update(self) -> dict[str, Tensor]:
        """Clip and step, unless the gradient norm is Inf or NaN."""
        scaler, optimizer = self.scaler, self.network.optimizer
        parameters, limit = list(self.network.module.parameters()), self.network.config.clip_norm
        scaler.unscale_(optimizer)
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if limit is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
        # Inf and NaN times zero are NaN: a third of the kernels of `isfinite`.
        log = {"gradient_norm": norm, "skipped": (norm * 0).ne(0).float()}
        # Fused Adam reads this flag on the device, so the host doesn't wait. `scaler.step` would set its own, which
        # misses a norm that overflows where no single gradient does.
        optimizer.grad_scale, optimizer.found_inf = None, log["skipped"]  # type: ignore[attr-defined]
        if self.skips_on_device or not log["skipped"]:
            optimizer.step()
        scaler.update()
        if scaler.is_enabled():
            log["loss_scale"] = scaler._get_scale_async().clone()  # type: ignore[union-attr]  # `get_scale` would wait
        self.skipped_in_a_row = torch.addcmul(log["skipped"], self.skipped_in_a_row, log["skipped"])  # (n + 1) skipped
        return log

    def update_ema(self, images: int, batch: int) -> None:
        """Update the EMA weights, if there are any."""
        if self.network.ema is not None:
            self.network.ema.update(self.network.module, images, batch)

    def replicated(self) -> dict[str, Iterable[Tensor]]:
        """Weights, optimizer states and EMA weights."""
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
        """The state of the network, its loss scaler and its counter."""
        rest = {"scaler": self.scaler.state_dict(), "skipped_in_a_row": self.skipped_in_a_row}
        return self.network.state_dict() | rest

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict()``."""
        self.network.load_state_dict(state)
        self.scaler.load_state_dict(state["scaler"])
        self.skipped_in_a_row = state["skipped_in_a_row"].to(self.skipped_in_a_row.device)
