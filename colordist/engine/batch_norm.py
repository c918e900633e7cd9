"""Batch normalisation by the statistics of the global batch (Ioffe and Szegedy 2015, arXiv 1502.03167).

So the result doesn't depend on how many processes share the batch. A network's running statistics are part of what it
learns: like its weights, they change in its own turn only, and not by an update that is skipped.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d over the images of all processes, each of which must call it, and run backward, equally often.

    For CPUs, where ``nn.SyncBatchNorm`` refuses. Parameters, buffers and their names are those of ``nn.BatchNorm2d``.
    """

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape and type. Statistics are computed in at least float32."""
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        with torch.autocast(input.device.type, enabled=False):
            x = input if input.dtype == torch.float64 else input.float()
            count = x.new_tensor([x.numel() / x.shape[1]])
            total = _sum(torch.cat([x.sum((0, 2, 3)), count]))
            mean, count = total[:-1] / total[-1], total[-1].detach()
            # In two passes: the mean square less the squared mean loses the digits in which both agree.
            centred = x - mean[:, None, None]
            variance = _sum(centred.square().sum((0, 2, 3))) / count
            scale = (variance + self.eps).rsqrt() * self.weight
            if self.track_running_stats:
                self._follow(mean.detach(), variance.detach() * count / (count - 1))
            return torch.addcmul(self.bias[:, None, None], centred, scale[:, None, None]).to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


class _Sum(torch.autograd.Function):
    """The sum over all processes. What each process makes of it depends on all summands, so gradients add up, too.

    ``torch.distributed.nn.functional.all_reduce`` does the same, but is deprecated since torch 2.15.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:  # noqa: ANN401  autograd's context
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401
        return _sum(gradient)


def _sum(values: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(values)
    return total


def use_global_statistics(module: nn.Module, device: torch.device) -> nn.Module:
    """Let every BatchNorm2d of a module that will run on a device use the whole global batch.

    Returns the module, or what replaces it. Parameters and buffers stay the same objects, under the same names.
    """
    if device.type != "cpu":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
        return converted
    for layer in module.modules():
        if type(layer) is nn.BatchNorm2d:
            layer.__class__ = GlobalBatchNorm2d  # nothing but its forward differs
    return module


class RunningStatistics:
    """The running statistics of a network: nothing where it has no batch normalisation."""

    def __init__(self, module: nn.Module) -> None:
        self.layers = [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
        self.buffers = [buffer for layer in self.layers for buffer in layer.buffers()]
        self.before = [buffer.clone() for buffer in self.buffers]

    def update_ema(self, trainable: bool) -> None:
        """Whether they follow what the network sees. Either way it normalises by the batch while it trains."""
        for layer in self.layers:
            layer.track_running_stats = trainable

    def remember(self) -> None:
        """Keep them as they are now."""
        for old, buffer in zip(self.before, self.buffers, strict=True):
            old.copy_(buffer)

    def restore_where(self, skipped: Tensor) -> None:
        """Put back what was remembered, if the update was skipped: else one batch of no numbers would stay for good."""
        for old, buffer in zip(self.before, self.buffers, strict=True):
            buffer.copy_(old.where(skipped > 0, buffer))
