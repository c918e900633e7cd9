"""The plan: which images a step learns from, and how each is changed. A pure function of (seed, step).

It knows nothing of processes: each takes its slice of the same plan. So the order of images and their augmentation are
the same on any number of them, a run can continue at any step, and there is no random state to save.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

# Each use of random numbers has a stream of its own, so that adding one doesn't move the others.
_ORDER, _FLIP, _CHANCE, _NOISE = 0, 1, 2, 3

CHANCES = 8
"""How many numbers the plan draws for whatever else a task decides by chance about a sample."""


def _random_bits(seed: int, stream: int, index: int, count: int) -> NDArray[np.uint64]:
    """``count`` random 64-bit words.

    Raw words, because numpy promises that they never change; what ``Generator`` makes of them may, between versions.
    """
    return np.random.PCG64(np.random.SeedSequence((seed, stream, index))).random_raw(count)


def _uniform(seed: int, stream: int, index: int, count: int) -> NDArray[np.float64]:
    """``count`` numbers in [0, 1), multiples of 2**-24: float32 holds them exactly."""
    uniform: NDArray[np.float64] = (_random_bits(seed, stream, index, count) >> np.uint64(40)).astype(np.float64)
    return uniform * 2.0**-24


def _normal(seed: int, stream: int, index: int, count: int) -> NDArray[np.float64]:
    """``count`` numbers of mean 0 and variance 1 (Box, Muller 1958)."""
    radius, angle = _uniform(seed, stream, index, 2 * count).reshape(2, count)
    normal: NDArray[np.float64] = np.sqrt(-2 * np.log1p(-radius)) * np.cos(2 * np.pi * angle)
    return normal


@lru_cache(maxsize=2)  # a step may cross from one epoch into the next
def _epoch_order(seed: int, epoch: int, length: int) -> NDArray[np.int64]:
    return np.argsort(_random_bits(seed, _ORDER, epoch, length), kind="stable")


@dataclass(frozen=True)
class Portion:
    """The samples of a step, or a slice of them."""

    index: NDArray[np.int64]
    """Which image of the training split: [n]."""
    flip: NDArray[np.bool_]
    """Whether to mirror it: [n]."""
    chance: NDArray[np.float64]
    """What a task decides by chance: [n, CHANCES], uniform in [0, 1)."""
    noise: NDArray[np.float64]
    """What a generator takes for its choice among several answers: [n, draws, numbers], standard normal."""

    def __getitem__(self, part: slice) -> "Portion":
        """A slice of the samples."""
        return Portion(self.index[part], self.flip[part], self.chance[part], self.noise[part])

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
    noise: tuple[int, int] = (0, 0)
    """How many draws of noise a sample gets, and of how many numbers each."""

    def step(self, step: int) -> Portion:
        """The samples of a step (counted from 0), global_batch_size of them."""
        positions = np.arange(step * self.global_batch_size, (step + 1) * self.global_batch_size)
        epochs, places = np.divmod(positions, self.length)
        index = np.empty_like(positions)
        for epoch in np.unique(epochs):
            now = epochs == epoch
            index[now] = _epoch_order(self.seed, int(epoch), self.length)[places[now]]
        size = self.global_batch_size
        heads = _random_bits(self.seed, _FLIP, step, size) >> np.uint64(63) == 1
        chance = _uniform(self.seed, _CHANCE, step, size * CHANCES).reshape(size, CHANCES)
        draws, numbers = self.noise
        noise = _normal(self.seed, _NOISE, step, size * draws * numbers).reshape(size, draws, numbers)
        return Portion(index, heads & self.flip, chance, noise)


def share(total: int, rank: int, world_size: int) -> slice:
    """The slice of ``total`` things that falls to a process: shares differ by at most one."""
    return slice(total * rank // world_size, total * (rank + 1) // world_size)


def micro_batches(total: int, most: int | None) -> list[slice]:
    """Cut ``total`` samples into as few slices as possible of at most ``most``, as even as possible."""
    count = -(-total // most) if most else 1
    return [share(total, part, count) for part in range(count)]
