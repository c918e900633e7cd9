"""The sampler: the images of a step, their augmentation and their noise. A pure function of (seed, step).

Independent of the number of processes: each takes its slice of the same samples. So order and augmentation are the same
on any number of processes, a run can resume at any step, and no RNG state is saved. A slice is drawn alone, by jumping
ahead in each random stream: its cost doesn't grow with the global batch.
"""

import math
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from colordist.data import hints

# One random stream per use, so that another use doesn't change the others.
_ORDER, _FLIP, _UNIFORMS, _NOISE, _HALVES, _TARGET_ORDER, _TARGET_FLIP, _VARIANT = range(8)
_CROP, _TARGET_CROP, _HINTS, _TEST_HINTS = 9, 10, 11, 12  # 8 was another's

CENTER = 0.5
"""Position of a central crop."""
UNIFORMS = 8
"""Uniform random numbers per sample for the task."""
_thread = ThreadPoolExecutor(1, "sampler")  # sorting releases the GIL


def _random_bits(seed: int, stream: int, index: int, count: int, start: int = 0) -> NDArray[np.uint64]:
    """``count`` random 64-bit words of a stream, from the one numbered ``start``.

    Raw words: NumPy keeps them stable across versions, but not the distributions of ``Generator``.
    """
    bits = np.random.PCG64(np.random.SeedSequence((seed, stream, index)))
    return bits.advance(start).random_raw(count)


def _uniform(
    seed: int, stream: int, index: int, rows: slice, shape: tuple[int, ...], skip: int = 0
) -> NDArray[np.float64]:
    """Some rows of uniform numbers in [0, 1), multiples of 2**-24, which are exact in float32: [rows, *shape].

    skip: rows before the first.
    """
    size, count = math.prod(shape), rows.stop - rows.start
    bits = _random_bits(seed, stream, index, count * size, (skip + rows.start) * size)
    uniform: NDArray[np.float64] = (bits >> np.uint64(40)).astype(np.float64)
    return (uniform * 2.0**-24).reshape(count, *shape)


def _normal(seed: int, stream: int, index: int, rows: slice, total: int, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Some rows of ``total`` rows of standard normal numbers (Box, Muller 1958): [rows, *shape]."""
    radius, angle = (_uniform(seed, stream, index, rows, shape, skip) for skip in (0, total))
    normal: NDArray[np.float64] = np.sqrt(-2 * np.log1p(-radius)) * np.cos(2 * np.pi * angle)
    return normal


def stable_argsort(values: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Indices that sort some values, those of equal ones ascending: [n].

    NumPy's default sort is several times as fast as its stable one, and gives the same unless values are equal.
    """
    order = np.argsort(values)
    ascending = values[order]
    return np.argsort(values, kind="stable") if (ascending[1:] == ascending[:-1]).any() else order


@lru_cache(maxsize=8)  # a step may span two epochs, and the next one is begun; unpaired training has two orders
def _order(seed: int, stream: int, epoch: int, count: int) -> Future[NDArray[np.int64]]:
    """Begin to draw the order of an epoch's samples, in the background: [count]."""
    return _thread.submit(lambda: stable_argsort(_random_bits(seed, stream, epoch, count)))


@lru_cache(maxsize=2)
def _halves(seed: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    order = _order(seed, _HALVES, 0, count).result()
    return order[: count // 2], order[count // 2 :]


@dataclass(frozen=True)
class SampleSlice:
    """The samples of a step, or a slice of them."""

    index: NDArray[np.int64]
    """Index into the training split: [n]."""
    flip: NDArray[np.bool_]
    """Whether to flip it horizontally: [n]."""
    crop: NDArray[np.float64]
    """Vertical and horizontal position of its crop in [0, 1): [n, 2]; see ``crops.corners``."""
    uniforms: NDArray[np.float64]
    """Uniform random numbers in [0, 1) for the task: [n, UNIFORMS]."""
    target_index: NDArray[np.int64]
    """Index of the target image: [n]; equals ``index``, unless training is unpaired."""
    target_flip: NDArray[np.bool_]
    """Whether to flip the target image: [n]."""
    target_crop: NDArray[np.float64]
    """Position of the target image's crop: [n, 2]."""
    batch_index: NDArray[np.int64]
    """Index in the global batch: [n]."""

    def __getitem__(self, part: slice) -> "SampleSlice":
        """A slice of the samples."""
        return SampleSlice(**{name: value[part] for name, value in vars(self).items()})

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.index)


@dataclass(frozen=True)
class Sampler:
    """(seed, step, dataset length, global batch) -> samples and augmentation of a step.

    Each epoch has every image once, in its own random order; a step may span two epochs.
    """

    seed: int
    length: int
    global_batch_size: int
    flip: bool
    noise_shape: tuple[int, ...] = (0,)
    """Noise shape per sample: candidates, then the shape of one candidate's noise."""
    unpaired: bool = False
    """Whether grey input and target colours come from different images, each from one half of the split."""
    random_crops: bool = False
    """Whether crops have uniformly random positions; else they are central."""
    hints: bool = False
    """Whether the task takes colour hints."""

    def step(self, step: int, rows: slice | None = None) -> SampleSlice:
        """The samples of a step, counted from 0. rows: of the global batch; None for all."""
        rows = rows or slice(0, self.global_batch_size)
        index, flip = self._indices(step, _ORDER, self.length, rows), self._coin_flips(step, _FLIP, rows)
        crop = self._crops(step, _CROP, rows)
        target_index, target_flip, target_crop = index, flip, crop
        if self.unpaired:
            grey_half, target_half = self.halves()
            index = grey_half[self._indices(step, _ORDER, len(grey_half), rows)]
            target_index = target_half[self._indices(step, _TARGET_ORDER, len(target_half), rows)]
            target_flip, target_crop = self._coin_flips(step, _TARGET_FLIP, rows), self._crops(step, _TARGET_CROP, rows)
        return SampleSlice(
            index=index,
            flip=flip,
            crop=crop,
            uniforms=_uniform(self.seed, _UNIFORMS, step, rows, (UNIFORMS,)),
            target_index=target_index,
            target_flip=target_flip,
            target_crop=target_crop,
            batch_index=np.arange(rows.start, rows.stop),
        )

    def noise(self, step: int, samples: SampleSlice) -> NDArray[np.float64]:
        """Generator noise of some consecutive samples of a step, standard normal: [n, *noise_shape].

        There may be as much of it as of pixels, so it is drawn apart, and for those samples alone.
        """
        return _normal(self.seed, _NOISE, step, _rows(samples), self.global_batch_size, self.noise_shape)

    def hint_uniforms(self, step: int, samples: SampleSlice) -> NDArray[np.float64]:
        """Uniform numbers for ``hints.random_squares``, of some consecutive samples of a step: [n, 1 + POINTS, 3]."""
        return _uniform(self.seed, _HINTS, step, _rows(samples), (1 + hints.POINTS, 3))

    def halves(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Halves of the split for grey input and for target colours, in unpaired training: indices."""
        return _halves(self.seed, self.length)

    def _indices(self, step: int, stream: int, count: int, rows: slice) -> NDArray[np.int64]:
        """Some of a step's samples, of ``count`` images."""
        first = step * self.global_batch_size
        positions = np.arange(first + rows.start, first + rows.stop)
        epochs, offsets = np.divmod(positions, count)
        indices = np.empty_like(positions)
        for epoch in np.unique(epochs).tolist():
            current, order = epochs == epoch, _order(self.seed, stream, epoch, count)
            indices[current] = order.result()[offsets[current]]
            _order(self.seed, stream, epoch + 1, count)  # to be ready in time
        return indices

    def _coin_flips(self, step: int, stream: int, rows: slice) -> NDArray[np.bool_]:
        """Whether to flip each of some of a step's samples."""
        bits = _random_bits(self.seed, stream, step, rows.stop - rows.start, rows.start)
        flips: NDArray[np.bool_] = bits >> np.uint64(63) == 1
        return flips & np.bool_(self.flip)

    def _crops(self, step: int, stream: int, rows: slice) -> NDArray[np.float64]:
        """Positions of the crops of some of a step's samples."""
        if self.random_crops:
            return _uniform(self.seed, stream, step, rows, (2,))
        return np.full((rows.stop - rows.start, 2), CENTER)


def _rows(samples: SampleSlice) -> slice:
    """Consecutive samples as a slice of the global batch."""
    first = int(samples.batch_index[0])
    return slice(first, first + len(samples))


def variant_noise(image: int, variant: int, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Noise for one variant of an image: standard normal, the same in every run.

    image: its number in the test split, or a digest.
    """
    return _normal(image, _VARIANT, variant, slice(0, 1), 1, shape).reshape(shape)


def hint_positions(image: int, count: int) -> NDArray[np.float64]:
    """Positions of random hints of an image of the test split, in [0, 1), the same in every run: [count, 2].

    The first ones don't depend on ``count``.
    """
    return _uniform(image, _TEST_HINTS, 0, slice(0, count), (2,))


def share(total: int, rank: int, world_size: int) -> slice:
    """A rank's slice of ``total`` items; sizes differ by at most one."""
    return slice(total * rank // world_size, total * (rank + 1) // world_size)


def even_slices(total: int, most: int | None) -> list[slice]:
    """Split ``total`` samples into the fewest slices of at most ``most``, as even as possible."""
    count = -(-total // most) if most else 1
    return [share(total, part, count) for part in range(count)]
