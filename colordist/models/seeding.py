"""Initial weights that depend on a seed alone."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

M = TypeVar("M", bound=nn.Module)


class TooLarge(Exception):
    """A module's tensors take more memory than there may be. It hasn't been taken."""


def seeded(seed: int, make: Callable[[], M], most: float = math.inf) -> M:
    """Build a module with weights that depend on the seed alone, the same as after ``torch.manual_seed``.

    The global random state is neither used nor changed, so other threads may draw random numbers meanwhile.

    most: bytes of the tensors. Raises TooLarge before more are allocated.
    """
    with _Drawing(torch.Generator().manual_seed(seed), most):
        return make()


_EMPTY = {torch.ops.aten.empty.memory_format, torch.ops.aten.zeros.default, torch.ops.aten.ones.default}
"""Operations by which modules allocate weights."""


class _Drawing(TorchDispatchMode):
    """Draws all random numbers on the CPU from a generator, in this thread, and limits the size of new tensors."""

    def __init__(self, generator: torch.Generator, most: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._generator = generator
        self._left = most

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Whether torch imports its compiler, in most of a second, to keep it away from here."""
        return False

    def __torch_dispatch__(
        self, func: OpOverload, types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:  # noqa: ANN401  whatever an operation returns
        """Run an operation."""
        given = dict(kwargs or {})
        if func in _EMPTY and _is_on_cpu((), given):
            self._left -= math.prod(args[0]) * (given.get("dtype") or torch.get_default_dtype()).itemsize
            if self._left < 0:
                raise TooLarge
        if torch.Tag.nondeterministic_seeded in func.tags and _is_on_cpu(args, given):
            variant = getattr(func.overloadpacket, "generator", func)
            if any(each.name == "generator" for each in variant._schema.arguments):
                return variant(*args, **given | {"generator": self._generator})
            return self._with_global_generator(func, args, given)
        return func(*args, **given)

    def _with_global_generator(self, func: OpOverload, args: Sequence[Any], given: Mapping[str, Any]) -> Any:  # noqa: ANN401
        """Run an operation that takes no generator."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=self._generator)))
            return func(*args, **given)


def _is_on_cpu(args: Sequence[Any], given: Mapping[str, Any]) -> bool:
    """Whether an operation's result will be on the CPU; a meta tensor needs no random numbers."""
    device = next((each.device for each in args if isinstance(each, Tensor)), given.get("device"))
    return device is None or torch.device(device).type == "cpu"
