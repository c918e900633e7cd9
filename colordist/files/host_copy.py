"""Copies of a training state on the host, in few transfers."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from colordist.threads import single_thread

_AT_ONCE = 2**26
"""Bytes that are put together on the device, where they are held twice for that time."""


def to_host(state: Any, kept: dict[int, Tensor] | None = None) -> Any:  # noqa: ANN401  nested dicts and lists
    """Copy nested dicts and lists of tensors and plain values to the CPU, so that training can't change them any more.

    Each transfer from a device waits for it, so tensors of a dtype are put together first. Their copies share memory.

    kept: copies of an earlier state that nobody reads any more. Those of the CPU's tensors are overwritten where they
    fit, as the kernel clears each page of fresh memory; the new ones are added.
    """
    tensors: list[Tensor] = []
    _map(state, tensors.append)
    copies: list[Tensor] = [torch.empty(0)] * len(tensors)
    kept = {} if kept is None else kept
    # Threads would wait for each other in every tensor: long, where other work has one of the cores.
    with single_thread():
        for index, tensor in enumerate(tensors):
            if tensor.device.type == "cpu":
                copies[index] = kept[index] = _overwritten(kept.get(index), tensor.detach())
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
    """Indices of tensors to be copied together: of one device, not the CPU, and of one dtype."""
    kinds: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for index, tensor in enumerate(tensors):
        if tensor.device.type != "cpu":
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


def _overwritten(memory: Tensor | None, tensor: Tensor) -> Tensor:
    """A copy of a tensor of the CPU, in memory if that has its dtype, shape and format."""
    if memory is None or _layout(memory) != _layout(tensor):
        return tensor.to("cpu", copy=True)
    return memory.copy_(tensor)


def _layout(tensor: Tensor) -> tuple[torch.dtype, torch.Size, tuple[int, ...]]:
    return tensor.dtype, tensor.shape, tensor.stride()


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
