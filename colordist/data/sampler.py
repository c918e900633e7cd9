"""The sampler: the images of a step, their augmentation and their noise. A pure function of (seed, step).

It knows nothing of processes: each takes its slice of the same samples. So the order of images and their augmentation
are the same on any number of processes, a run can resume at any step, and there is no random state to save.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

# Each use of random numbers has a stream of its own, so that adding one doesn't move the others.
_ORDER, _FLIP, _UNIFORMS, _NOISE, _HALVES, _TARGET_ORDER, _TARGET_FLIP, _VARIANT, _VISITS = range(9)

UNIFORMS = 8
"""How many uniform random numbers the sampler draws per sample for the task's own use."""


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


@lru_cache(maxsize=4)  # a step may cross from one epoch into the next; two orders where training is unpaired
def _order(seed: int, stream: int, epoch: int, shards: tuple[int, ...], at_once: int) -> NDArray[np.int64]:
    """The samples of an epoch: shards in a random order, ``at_once`` at a time, shuffled within these windows.

    shards: how many samples are in each. Windows differ in their number of shards by at most one.
    """
    bits = _random_bits(seed, stream, epoch, sum(shards))
    visits = np.argsort(_random_bits(seed, _VISITS, epoch, len(shards)), kind="stable")
    window = np.empty(len(shards), np.int64)
    for number, part in enumerate(micro_batches(len(shards), at_once)):
        window[visits[part]] = number
    return np.lexsort((bits, np.repeat(window, shards)))


@lru_cache(maxsize=2)
def _halves(seed: int, shards: tuple[int, ...]) -> tuple["Half", "Half"]:
    count = sum(shards)
    order = _order(seed, _HALVES, 0, (count,), 1)
    halves = order[: count // 2], order[count // 2 :]
    if len(shards) == 1:
        return Half(halves[0], (len(halves[0]),)), Half(halves[1], (len(halves[1]),))
    shard = np.repeat(np.arange(len(shards)), shards)
    first, second = (
        Half(np.sort(half), tuple(np.bincount(shard[half], minlength=len(shards)).tolist())) for half in halves
    )
    return first, second


@dataclass(frozen=True, eq=False)
class Half:
    """The images that are seen in one form only where training is unpaired."""

    index: NDArray[np.int64]
    """Which images of the training split, those of a shard side by side: [n]."""
    shards: tuple[int, ...]
    """How many of them are in each shard."""


@dataclass(frozen=True)
class SampleSlice:
    """The samples of a step, or a slice of them."""

    index: NDArray[np.int64]
    """Which image of the training split: [n]."""
    flip: NDArray[np.bool_]
    """Whether to mirror it: [n]."""
    uniforms: NDArray[np.float64]
    """Random numbers for the task's own use: [n, UNIFORMS], uniform in [0, 1)."""
    noise: NDArray[np.float64]
    """Noise for the generator: [n, candidates, *noise_shape], standard normal."""
    target_index: NDArray[np.int64]
    """Index of the target image: [n]. ``index``, unless training is unpaired."""
    target_flip: NDArray[np.bool_]
    """Whether to mirror that one: [n]."""
    batch_index: NDArray[np.int64]
    """Index in the global batch: [n]."""

    def __getitem__(self, part: slice) -> "SampleSlice":
        """A slice of the samples."""
        return SampleSlice(**{name: value[part] for name, value in vars(self).items()})

    def __len__(self) -> int:
        """How many samples."""
        return len(self.index)


@dataclass(frozen=True)
class Sampler:
    """(seed, step, dataset length, global batch) -> samples and augmentation of a step.

    Each epoch shows every image once, in an order of its own; a step may cross from one epoch into the next.

    Where images lie in shards, an epoch passes through windows, which share no shard: samples that follow one another
    come from at most ``shuffle_shards`` shards within a window, and from as many more for each further window that
    they reach into. So no stretch as long as the smallest window, or shorter, needs more than ``2 * shuffle_shards``.
    """

    seed: int
    length: int
    global_batch_size: int
    flip: bool
    noise: tuple[int, ...] = (0,)
    """Shape of the noise per sample: candidates, then the shape of one."""
    unpaired: bool = False
    """Whether grey and colours come from different images: one half is only seen as grey, the other in colour."""
    shards: tuple[int, ...] = ()
    """Number of images in each shard, where they lie in shards: ``length`` in all, in the order of their index."""
    shuffle_shards: int = 1
    """How many shards are shuffled together; all of them: an order as without shards."""

    def step(self, step: int) -> SampleSlice:
        """The samples of a step (counted from 0), global_batch_size of them."""
        size = self.global_batch_size
        index, flip = self._draw(step, _ORDER, self._shards), self._heads(step, _FLIP)
        target_index, target_flip = index, flip
        if self.unpaired:
            grey_half, target_half = self.halves()
            index = grey_half.index[self._draw(step, _ORDER, grey_half.shards)]
            target_index = target_half.index[self._draw(step, _TARGET_ORDER, target_half.shards)]
            target_flip = self._heads(step, _TARGET_FLIP)
        uniforms = _uniform(self.seed, _UNIFORMS, step, size * UNIFORMS).reshape(size, UNIFORMS)
        noise = _normal(self.seed, _NOISE, step, size * math.prod(self.noise)).reshape(size, *self.noise)
        return SampleSlice(index, flip, uniforms, noise, target_index, target_flip, batch_index=np.arange(size))

    @property
    def _shards(self) -> tuple[int, ...]:
        return self.shards or (self.length,)

    def halves(self) -> tuple[Half, Half]:
        """Which images are seen as grey and which in colour where training is unpaired: each at least one of two."""
        return _halves(self.seed, self._shards)

    def _draw(self, step: int, stream: int, shards: tuple[int, ...]) -> NDArray[np.int64]:
        """A step's samples out of those in ``shards``."""
        positions = np.arange(step * self.global_batch_size, (step + 1) * self.global_batch_size)
        epochs, places = np.divmod(positions, sum(shards))
        drawn = np.empty_like(positions)
        for epoch in np.unique(epochs):
            now = epochs == epoch
            drawn[now] = _order(self.seed, stream, int(epoch), shards, self.shuffle_shards)[places[now]]
        return drawn

    def _heads(self, step: int, stream: int) -> NDArray[np.bool_]:
        """Which of a step's samples to mirror."""
        heads: NDArray[np.bool_] = _random_bits(self.seed, stream, step, self.global_batch_size) >> np.uint64(63) == 1
        return heads & np.bool_(self.flip)


def variant_noise(image: int, variant: int, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The noise for one answer to a test image: standard normal, of this shape, the same in every run."""
    return _normal(image, _VARIANT, variant, math.prod(shape)).reshape(shape)


def share(total: int, rank: int, world_size: int) -> slice:
    """The slice of ``total`` things that falls to a process: shares differ by at most one."""
    return slice(total * rank // world_size, total * (rank + 1) // world_size)


def micro_batches(total: int, most: int | None) -> list[slice]:
    """Cut ``total`` samples into as few slices as possible of at most ``most``, as even as possible."""
    count = -(-total // most) if most else 1
    return [share(total, part, count) for part in range(count)]
