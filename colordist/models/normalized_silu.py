"""GroupNorm and SiLU between two convolutions in half precision, on a GPU."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class _NormalizedSiLU(torch.autograd.Function):
    """In float32 and contiguous, as CUDA's GroupNorm needs it; dtype and memory format are changed in one pass."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        image: Tensor,
        weight: Tensor,
        bias: Tensor,
        groups: int,
        epsilon: float,
    ) -> Tensor:
        contiguous = torch.empty(image.shape, dtype=weight.dtype, device=image.device).copy_(image)
        batch, channels, height, width = image.shape
        normalized, mean, scale = torch.native_group_norm(
            contiguous, weight, bias, batch, channels, height * width, groups, epsilon
        )
        ctx.save_for_backward(contiguous, normalized, mean, scale, weight)
        ctx.groups, ctx.like = groups, torch.empty_like(image, device="meta")
        return torch.empty_like(image).copy_(F.silu(normalized))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        image, normalized, mean, scale, weight = ctx.saved_tensors
        batch, channels, height, width = image.shape
        activation = torch.ops.aten.silu_backward(torch.empty_like(normalized).copy_(gradient), normalized)
        of_image, of_weight, of_bias = torch.ops.aten.native_group_norm_backward(
            activation, image, mean, scale, weight, batch, channels, height * width, ctx.groups, [True, True, True]
        )
        return torch.empty_like(ctx.like, device=image.device).copy_(of_image), of_weight, of_bias, None, None


def normalized_silu(image: Tensor, norm: nn.GroupNorm) -> Tensor:
    """SiLU of a normalised image in half precision: [B, C, H, W] -> the same shape, dtype and memory format.

    Rounded once, at the end. It has no second derivative.
    """
    output: Tensor = _NormalizedSiLU.apply(image, norm.weight, norm.bias, norm.num_groups, norm.eps)
    return output
