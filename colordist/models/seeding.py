"""Initial weights that depend on a seed alone."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def seeded(seed: int, make: Callable[[], M]) -> M:
    """Build a module with weights that depend on the seed alone; the global RNG state is kept."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()
