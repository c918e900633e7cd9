"""Replica consistency: equal settings, code and images at the start, equal weights at each check.

A rank that differs would corrupt the run silently.
"""

import functools
import socket
from collections import Counter
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from colordist.config import Value
from colordist.engine.runtime import Engine
from colordist.errors import RunError, UserError

_CHUNK = 2**18  # elements hashed at once
_FACTOR = -0x61C8864680B583EB  # odd: 2**64 divided by the golden ratio
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_PARTS = {"weights": "weights", "optimizer": "optimizer states", "averaged": "averaged weights"}


def check_same_settings(engine: Engine, settings: Mapping[str, Value]) -> None:
    """Raise UserError on all ranks if one of them has different settings."""
    (first_host, first), *others = engine.gather((socket.gethostname(), dict(settings)))
    for rank, (host, found) in enumerate(others, start=1):
        for key in sorted(first | found):
            if first.get(key) != found.get(key):
                raise UserError(
                    f"process {rank} on {host} has {key} {found.get(key)}, process 0 on {first_host} has "
                    f"{first.get(key)}: start all processes with the same command, on machines of one kind"
                )


def check_same(engine: Engine, what: str, value: object, way_out: str) -> None:
    """Raise UserError on all ranks unless the value is equal on all of them.

    what: predicate of the error message, like "runs other code". value: short and picklable, like a digest.
    """
    (first_host, first), *others = engine.gather((socket.gethostname(), value))
    for rank, (host, found) in enumerate(others, start=1):
        if found != first:
            raise UserError(f"process {rank} on {host} {what} than process 0 on {first_host}: {way_out}")


def check_replicas(engine: Engine, step: int) -> None:
    """Raise RunError on all ranks if their replicas of the networks differ by a bit or hold Inf or NaN."""
    names, prints, finite = [], [], []
    for network, parts in engine.replicas().items():
        for part, tensors in parts.items():
            values = list(tensors)
            names.append(f"the {network}'s {_PARTS[part]}")
            prints.append(tensor_hash(values if engine.world_size > 1 else [], engine.device))
            finite.append(part == "optimizer" or _is_finite(values))
    found = torch.stack(prints).tolist(), finite
    hosts, copies = zip(*engine.gather((socket.gethostname(), found)), strict=True)
    for index, name in enumerate(names):
        for rank, (_, are_finite) in enumerate(copies):
            if not are_finite[index]:
                raise RunError(
                    f"{name} on process {rank} on {hosts[rank]} are not finite at step {step}: try a lower learning "
                    "rate, or train.precision fp32; the same command continues from the last checkpoint"
                )
        if odd := _odd_one([each[index] for each, _ in copies]):
            rank, other = odd
            raise RunError(
                f"{name} on process {rank} on {hosts[rank]} differ from process {other}'s at step {step}: suspect its "
                "GPU or memory, or machines of several kinds; the same command continues from the last checkpoint"
            )


def _odd_one(values: list[int]) -> tuple[int, int] | None:
    """The first index whose value isn't the most frequent one, and the first index whose value is; None if all agree.

    Of several values that are equally frequent, the first counts as the most frequent.
    """
    (usual, count), *_ = Counter(values).most_common(1)
    if count == len(values):
        return None
    return next(rank for rank, value in enumerate(values) if value != usual), values.index(usual)


def tensor_hash(tensors: Iterable[Tensor], device: torch.device) -> Tensor:
    """Hash of the bits and the order of tensors: an int64 scalar on their device.

    Integer addition is exact, so neither the order of summation nor the memory format counts.
    """
    total = torch.zeros((), dtype=torch.int64, device=device)
    for tensor in tensors:
        bits = tensor.detach().view(_INTEGERS[tensor.element_size()]).reshape(-1)
        for chunk in bits.split(_CHUNK):
            # The factors are odd, so a change of any single element changes the sum.
            total = total * _FACTOR + (chunk.to(torch.int64) * _factors(tensor.device)[: len(chunk)]).sum()
    return total


@functools.cache
def _factors(device: torch.device) -> Tensor:
    """Odd pseudo-random factors, so that changes of several elements don't cancel: int64, _CHUNK of them."""
    numbers = torch.arange(1, _CHUNK + 1, device=device) * _FACTOR
    return ((numbers ^ (numbers >> 31)) * _FACTOR) | 1


def _is_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether no tensor holds Inf or NaN. Waits for the device."""
    values = [tensor for tensor in tensors if tensor.is_floating_point()]
    # A norm takes one fast pass. It is Inf or NaN if a value is, and may overflow where none is.
    if torch.stack(torch._foreach_norm(values)).isfinite().all():
        return True
    return all(tensor.isfinite().all() for tensor in values)
