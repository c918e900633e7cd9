"""What a process on the null device needs besides its CUDA runtime: counters, and replacements in PyTorch.

    LD_PRELOAD=libnull.so python null_device.py MODULE ARGUMENT...

runs a module on it. Kernels are launched but not run, so what they would have written is zero, and false. Replaced is
what that would break, and what cuDNN would do:

- convolutions, batch normalisation: an empty output in the same memory format, and one operation for each;
- ``nonzero``: the indices of all elements, after the same wait. Nothing would be selected;
- ``bincount``: one in each bin, after the same wait. There would be no median;
- ``equal``: false, after the same wait. All images would be grey;
- collectives of Python objects: through gloo. Their sizes would be compared on the device;
- cuDNN's attention: off, so that PyTorch's own is chosen;
- colordist's error that weights aren't finite: ignored. None are, where every comparison is false.
"""

import ctypes
import runpy
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._prims_common import suggest_memory_format

from colordist.engine import consistency
from colordist.engine.runtime import Engine
from colordist.errors import RunError

_library = ctypes.CDLL(None)
_library.null_name.restype = _library.null_log_text.restype = ctypes.c_char_p
_library.null_count.restype = ctypes.c_long

OPERATIONS = ("launch", "blas", "cudnn", "copy_to_device", "copy_to_host", "copy_on_device", "memset", "collective")
"""What is handed over to the device."""
WAITS = ("device_sync", "stream_sync", "event_sync", "blocking_copy")
"""What the host waits for."""


def counts() -> Counter[str]:
    """Operations and waits of this process so far, by name."""
    return Counter({_library.null_name(i).decode(): _library.null_count(i) for i in range(_library.null_counters())})


def log_streams(on: bool) -> None:
    """Begin a log of streams, or end it."""
    _library.null_log(on)


def stream_log() -> list[str]:
    """Its lines: ``launch STREAM``, ``copy STREAM``, ``collective STREAM``, ``wait STREAM for STREAM``."""
    text: bytes = _library.null_log_text()
    return text.decode().splitlines()


# --- replacements

_aten = torch.library.Library("aten", "IMPL")


def install() -> None:
    """Replace what doesn't work without kernels or cuDNN, as listed above."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is another implementation
        for name, function in {
            "cudnn_convolution": _convolution,
            "convolution_backward": _convolution_backward,
            "cudnn_batch_norm": _batch_norm,
            "nonzero": _nonzero,
            "bincount": _bincount,
            "equal": _equal,
        }.items():
            _aten.impl(name, function, "CUDA", allow_override=True)
    torch.backends.cuda.enable_cudnn_sdp(False)
    dist.all_gather_object = _through_gloo(dist.all_gather_object)
    dist.broadcast_object_list = _through_gloo(dist.broadcast_object_list)
    consistency.check_replicas = _finite_or_not(consistency.check_replicas)  # type: ignore[assignment]


def _format(image: Tensor, weight: Tensor) -> torch.memory_format:
    """The memory format of a convolution's results."""
    found = {suggest_memory_format(each) for each in (image, weight)}  # contiguous in doubt
    return torch.channels_last if torch.channels_last in found else torch.contiguous_format


def _convolution(
    image: Tensor, weight: Tensor, padding: Sequence[int], stride: Sequence[int], dilation: Sequence[int], *_: object
) -> Tensor:
    memory_format = _format(image, weight)
    for each in (image, weight):
        each.contiguous(memory_format=memory_format)  # as cuDNN needs them: a copy if they aren't
    _library.null_count_cudnn()
    size = [
        (image.shape[2 + i] + 2 * padding[i] - dilation[i] * (weight.shape[2 + i] - 1) - 1) // stride[i] + 1
        for i in range(2)
    ]
    shape = (len(image), len(weight), *size)
    return torch.empty(shape, dtype=image.dtype, device=image.device, memory_format=memory_format)


def _convolution_backward(
    gradient: Tensor,
    image: Tensor,
    weight: Tensor,
    *settings: Any,  # noqa: ANN401
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    memory_format, wanted = _format(image, weight), settings[-1]
    gradient = gradient.contiguous(memory_format=memory_format)
    results = []
    for is_wanted, like in zip(wanted, (image, weight), strict=False):
        if is_wanted:
            _library.null_count_cudnn()
        results.append(torch.empty_like(like, memory_format=memory_format) if is_wanted else None)
    return results[0], results[1], gradient.sum((0, 2, 3)) if wanted[2] else None


def _batch_norm(image: Tensor, *_: object) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    _library.null_count_cudnn()
    unused = image.new_empty(0)
    return torch.empty_like(image), unused, unused, unused


def _nonzero(values: Tensor) -> Tensor:
    return torch.ones(values.shape).nonzero().to(values.device)


def _bincount(values: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    return torch.ones(max(1, minlength), dtype=torch.int64).to(values.device)


def _equal(first: Tensor, second: Tensor) -> bool:
    return bool((first == second).any())


def _through_gloo(collective: Any) -> Any:  # noqa: ANN401  a function
    """A collective of objects in a group of its own, made by the first call."""
    groups: list[Any] = []

    def through_gloo(*arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401
        if not groups:
            groups.append(dist.new_group(backend="gloo"))
        return collective(*arguments, **keywords | {"group": groups[0]})

    return through_gloo


def _finite_or_not(check: Callable[[Engine, int], None]) -> Callable[[Engine, int], None]:
    """``check_replicas``, which raises nothing about weights that aren't finite."""

    def checked(engine: Engine, step: int) -> None:
        try:
            check(engine, step)
        except RunError as error:
            if "are not finite" not in str(error):
                raise

    return checked


install()

if __name__ == "__main__":
    module, *sys.argv[1:] = sys.argv[1:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
