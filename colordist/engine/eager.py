"""Training without PyTorch's compiler, which takes as long to import as all else after ``import torch``.

Parts of PyTorch import it although nothing is compiled: ``torch.optim`` decorates methods so that the compiler, should
it meet them, divides its graph there, and DistributedDataParallel asks for one of its settings. Optimizers aren't
compiled here, not even with ``train.compile``. This relies on details of PyTorch, tried with 2.11 and 2.14: where one
has changed, the compiler is imported.
"""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

_DECORATORS = ("inner", "_use_grad")  # functions made by ``torch._disable_dynamo``, and by the decorator of ``step``


class Adam(torch.optim.Adam):
    """Adam with the methods that PyTorch decorates, but without these decorators."""


def _undecorated(method: Callable[..., Any]) -> Callable[..., Any] | None:
    """What a method is without one of these decorators, None if it has none."""
    if getattr(method, "hooked", False):  # by the first optimizer of this kind; the first one of ours will hook its own
        method = method.__wrapped__  # type: ignore[attr-defined]
    return getattr(method, "__wrapped__", None) if method.__code__.co_name in _DECORATORS else None


for _name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict", "step"):
    if (_method := _undecorated(getattr(torch.optim.Adam, _name))) is not None:
        setattr(Adam, _name, torch.no_grad()(_method) if _name == "step" else _method)  # as `step`'s decorator does


class _Placeholder:
    """Knows a few attributes of a module, and imports it for any other."""

    def __init__(self, module: str, **known: object) -> None:
        self.__dict__ |= known
        self._module = module

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  as a module
        return getattr(importlib.import_module(self._module), name)


@contextmanager
def ddp_without_compiler() -> Iterator[None]:
    """Context in which DistributedDataParallel is made without importing the compiler, if that isn't imported yet."""
    if "torch._dynamo" in sys.modules:
        yield
        return
    # Any mode but "python_reducer" is the same to the constructor.
    utils = _Placeholder("torch._dynamo.utils", get_optimize_ddp_mode=lambda: "no_optimization")
    placeholder = vars(torch)["_dynamo"] = _Placeholder("torch._dynamo", utils=utils)
    try:
        yield
    finally:
        if vars(torch).get("_dynamo") is placeholder:  # an import replaces it
            del vars(torch)["_dynamo"]


def run_eagerly(module: nn.Module) -> None:
    """Have a DistributedDataParallel run without importing the compiler, if that isn't imported yet."""
    context = getattr(DistributedDataParallel, "_inside_ddp_forward", None)
    decorated = getattr(context, "__wrapped__", None)
    if "torch._dynamo" in sys.modules or decorated is None or (method := _undecorated(decorated)) is None:
        return
    module._inside_ddp_forward = contextmanager(method).__get__(module)
