"""The plan: which images a step learns from, and how each is changed. A pure function of (seed, step).

It knows nothing of processes: each takes its slice of the same plan. So the order of images and their augmentation are
the same on any number of them, a run can continue at any step, and there is no random state to save.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

# Each use of random numbers has a stream of its own, so that adding one doesn't move the others.
_ORDER, _FLIP = 0, 1


def _random_bits(seed: int, stream: int, index: int, count: int) -> NDArray[np.uint64]:
    """``count`` random 64-bit words.

    Raw words, because numpy promises that they never change; what ``Generator`` makes of them may, between versions.
    """
    return np.random.PCG64(np.random.SeedSequence((seed, stream, index))).random_raw(count)


@lru_cache(maxsize=2)  # a step may cross from one epoch into the next
def _epoch_order(seed: int, epoch: int, length: int) -> NDArray[np.int64]:
    return np.argsort(_random_bits(seed, _ORDER, epoch, length), kind="stable")


@dataclass(frozen=True)
class Portion:
    """The samples of a step, or a slice of them: index [n] into the training split, and whether to mirror each [n]."""

    index: NDArray[np.int64]
    flip: NDArray[np.bool_]

    def __getitem__(self, part: slice) -> "Portion":
        """A slice of the samples."""
        return Portion(self.index[part], self.flip[part])

    def __len__(self) -> int:
        """How many samples."""
        return len(self.index)


@dataclass(frozen=True)
class Plan:
    """(seed, step, dataset length, global batch) -> samples and augmentation of a step.

    Each epoch shows every image once, in an order of its own; a step may cross from one epoch into the next.
    """

    seed: int
    length: int
    global_batch_size: int
    flip: bool

    def step(self, step: int) -> Portion:
        """The samples of a step (counted from 0), global_batch_size of them."""
        positions = np.arange(step * self.global_batch_size, (step + 1) * self.global_batch_size)
        epochs, places = np.divmod(positions, self.length)
        index = np.empty_like(positions)
        for epoch in np.unique(epochs):
            now = epochs == epoch
            index[now] = _epoch_order(self.seed, int(epoch), self.length)[places[now]]
        heads = _random_bits(self.seed, _FLIP, step, self.global_batch_size) >> np.uint64(63) == 1
        return Portion(index, heads & self.flip)


def share(total: int, rank: int, world_size: int) -> slice:
    """The slice of ``total`` things that falls to a process: shares differ by at most one."""
    return slice(total * rank // world_size, total * (rank + 1) // world_size)


def micro_batches(total: int, most: int | None) -> list[slice]:
    """Cut ``total`` samples into as few slices as possible of at most ``most``, as even as possible."""
    count = -(-total // most) if most else 1
    return [share(total, part, count) for part in range(count)]
