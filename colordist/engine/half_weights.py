"""Weights in half precision, cast together before a forward pass.

Autocast casts each weight and bias of each convolution on its own, and each gradient back: on a GPU two kernel launches
per tensor. Here they are cast in a few launches, to the same values.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils import parametrize

_CAST = (nn.Conv2d, nn.Linear)
"""Layers whose weights autocast casts, and which do nothing else with them. Not their subclasses, which might."""


class _Cast(torch.autograd.Function):
    """Several tensors in another dtype."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *tensors: Tensor) -> tuple[Tensor, ...]:  # noqa: ANN401
        ctx.dtype = tensors[0].dtype
        ctx.set_materialize_grads(False)
        return tuple(_cast(tensors, dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        casts = iter(_cast([each for each in gradients if each is not None], ctx.dtype))
        return None, *(None if each is None else next(casts) for each in gradients)


def _cast(tensors: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    casts = [torch.empty_like(each, dtype=dtype) for each in tensors]
    if casts:
        torch._foreach_copy_(casts, list(tensors))
    return casts


class HalfWeights:
    """The weights and biases of a module's convolutions and linear layers, and their casts."""

    def __init__(self, module: nn.Module, *, trained: bool) -> None:
        """trained: whether they are cast together also where gradients are needed."""
        self._trained = trained
        self._slots = [
            (layer, name) for layer in module.modules() if _kind(layer) in _CAST for name in layer._parameters
        ]
        self._slots = [(layer, name) for layer, name in self._slots if layer._parameters[name] is not None]
        self._kept: tuple[list[int], torch.dtype, list[Tensor]] | None = None

    @contextmanager
    def used(self, dtype: torch.dtype) -> Iterator[None]:
        """Context in which the layers have their weights in a dtype, unless that is left to autocast."""
        casts = self._casts(dtype)
        if casts is None:
            yield
            return
        for (layer, name), cast in zip(self._slots, casts, strict=True):
            layer.__dict__[name] = cast  # before the parameter, which stays registered
        try:
            yield
        finally:
            for layer, name in self._slots:
                del layer.__dict__[name]

    def _casts(self, dtype: torch.dtype) -> Sequence[Tensor] | None:
        """The weights in a dtype, kept until the module is trained again; None if they are left to autocast."""
        weights = [layer._parameters[name] for layer, name in self._slots]
        tensors = [weight for weight in weights if weight is not None]
        if trained := [each for each in tensors if each.requires_grad]:
            self._kept = None  # without a look at versions, which fused Adam doesn't count up
            if not self._trained:
                return None
            casts = iter(_Cast.apply(dtype, *trained))
            frozen = iter(_cast([each for each in tensors if not each.requires_grad], dtype))
            return [next(casts if each.requires_grad else frozen) for each in tensors]
        versions = [each._version for each in tensors]  # they show that a state was loaded
        if self._kept is None or self._kept[:2] != (versions, dtype):
            self._kept = versions, dtype, _cast(tensors, dtype)
        return self._kept[2]


def cast_weights_together(module: nn.Module, *, trained: bool = True) -> None:
    """Patch a module's forward pass: under autocast its weights are cast together. A deep copy is patched likewise.

    trained: also while it is trained. All gradients then come at the end of backward, when no all-reduce could overlap
    with it any more.
    """
    module.half_weights = HalfWeights(module, trained=trained)  # type: ignore[assignment]
    module.forward = MethodType(_cast_and_forward, module)


def _cast_and_forward(module: Any, *inputs: Any, **options: Any) -> Any:  # noqa: ANN401  those of its forward
    device = next(module.parameters()).device.type
    if not torch.is_autocast_enabled(device):
        return type(module).forward(module, *inputs, **options)
    with module.half_weights.used(torch.get_autocast_dtype(device)):
        return type(module).forward(module, *inputs, **options)


def _kind(layer: nn.Module) -> type:
    """A layer's class, without the one that parametrize derives from it."""
    return type(layer).__mro__[1] if parametrize.is_parametrized(layer) else type(layer)
