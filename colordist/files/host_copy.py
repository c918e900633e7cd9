"""Copies of a training state on the host, in few transfers."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

_AT_ONCE = 2**26
"""Bytes that are put together on the device, where they are held twice for that time."""


def to_host(state: Any) -> Any:  # noqa: ANN401  nested dicts and lists of tensors and plain values
    """Copy nested dicts and lists of tensors to the CPU, so that training can't change them any more.

    Each transfer from a device waits for it, so tensors of a dtype are put together first. Their copies share memory.
    """
    tensors: list[Tensor] = []
    _map(state, tensors.append)
    copies: list[Tensor] = [torch.empty(0)] * len(tensors)
    for group in _groups(tensors):
        for index, copy in zip(group, _copied([tensors[index].detach() for index in group]), strict=True):
            copies[index] = copy
    remaining = iter(copies)
    return _map(state, lambda _: next(remaining))


def _map(state: Any, function: Callable[[Tensor], Any]) -> Any:  # noqa: ANN401
    """Replace the tensors in nested dicts and lists."""
    if isinstance(state, Tensor):
        return function(state)
    if isinstance(state, dict):
        return {key: _map(value, function) for key, value in state.items()}
    if isinstance(state, list):
        return [_map(value, function) for value in state]
    return state


def _groups(tensors: Sequence[Tensor]) -> Iterator[list[int]]:
    """Indices of tensors to be copied together: of one device and dtype, those of the CPU each alone."""
    kinds: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for index, tensor in enumerate(tensors):
        if tensor.device.type == "cpu":
            yield [index]
        else:
            kinds.setdefault((tensor.device, tensor.dtype), []).append(index)
    for indices in kinds.values():
        group: list[int] = []
        size = 0
        for index in indices:
            if group and size + tensors[index].nbytes > _AT_ONCE:
                yield group
                group, size = [], 0
            group.append(index)
            size += tensors[index].nbytes
        yield group


def _copied(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copies on the CPU of tensors of one device and dtype, in their memory formats."""
    if len(tensors) == 1:
        return [tensors[0].to("cpu", copy=True)]
    like = [torch.empty_like(each, device="meta") for each in tensors]  # dense, whatever the original is
    flat = torch.cat([_in_memory_order(each, meta) for each, meta in zip(tensors, like, strict=True)]).cpu()
    parts = flat.split([each.numel() for each in tensors])
    return [part.as_strided(meta.shape, meta.stride()) for part, meta in zip(parts, like, strict=True)]


def _in_memory_order(tensor: Tensor, like: Tensor) -> Tensor:
    """Elements in the order of a dense layout: a view where the tensor has it, else of a copy."""
    dense = tensor if tensor.stride() == like.stride() else tensor.clone(memory_format=torch.preserve_format)
    return dense.as_strided((dense.numel(),), (1,))
