"""Loaders of each process's share of the global batch.

A training split that fits is held on the device as uint8 and indexed there: training opens and decodes no files. A
small one is also held as grey and colours, so that a step converts nothing. For larger ones see streaming.py.
"""

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from colordist.data.batch import Batch, Share, send
from colordist.data.crops import Layout
from colordist.data.sampler import CENTER
from colordist.data.source import Split, StreamedSplit, UncroppedSplit
from colordist.files.memory import require_memory

_SAMPLE = 4096  # images
_VECTOR = 32
"""Pixels that vector instructions convert at once, at most."""
_CONVERTED = {"cuda": 2**30, "cpu": 2**28}
"""Bytes that grey and colours of all images may take on a device, besides the images."""


def load(split: Split, device: torch.device, name: str = "", *, quiet: bool = True) -> Tensor:
    """Load all images of a split, cropped at the centre: uint8 [N, 3, H, W] on the device."""
    what, way_out = f"{len(split):,} {name or 'images'}", "try fewer of them, or a smaller data.image_size"
    require_memory(len(split) * split[0].size, device.type, what, way_out)
    images = np.stack([split[i] for i in tqdm(range(len(split)), desc=f"loading {name}", disable=quiet or None)])
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().to(device)


def sample(split: Split, device: torch.device) -> Iterator[Tensor]:
    """Sample a split for colour statistics: all images, or a few thousand of a streamed split.

    Those are spread evenly. Yields uint8 [B, 3, H, W] on the device.
    """
    indices = np.arange(len(split))
    if isinstance(split, StreamedSplit) and len(split) > _SAMPLE:
        indices = np.arange(_SAMPLE) * len(split) // _SAMPLE
    for part in in_batches(len(indices), 256):
        images = np.stack([split[index] for index in indices[part].tolist()])
        yield torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().to(device)


def image_digest(images: Tensor) -> str:
    """CRC-32 of a split's images in their order, as eight hexadecimal digits."""
    return f"{zlib.crc32(images.cpu().numpy().data):08x}"


class Loader(Protocol):
    """Loader of one process's share of each global batch."""

    def micro_batches(self, step: int) -> list[Batch]:
        """Load this process's samples of a step, in micro-batches of at most micro_batch_size."""
        ...

    def sample(self) -> Iterable[Tensor]:
        """A sample of the training split for colour statistics: batches of uint8 [B, 3, H, W]."""
        ...

    @property
    def digest(self) -> str:
        """Digest of the training images and their order."""
        ...

    def close(self) -> None:
        """Stop the worker processes."""
        ...


@dataclass(frozen=True)
class ResidentLoader:
    """Loader of images held on the device."""

    images: Tensor
    """uint8 [N, 3, H, W]; of images that are larger than the crops all pixels, [P, 3]."""
    share: Share
    layout: Layout | None = None
    """Where each of these images lies in the pixels."""

    def micro_batches(self, step: int) -> list[Batch]:
        """Index this process's samples of a step, in micro-batches of at most micro_batch_size."""
        return [self.share.batch(step, sample_slice, self._batch) for sample_slice in self.share.sample_slices(step)]

    def _batch(
        self, index: NDArray[np.int64], positions: NDArray[np.float64], flip: NDArray[np.bool_]
    ) -> tuple[Tensor, Tensor]:
        """Grey and colours, as ``data.batch.Images``."""
        if self._converted is None:
            return self.share.flip_and_split(self._crops(index, positions), flip)
        grey, color = self._converted
        rows = send(torch.from_numpy(np.where(flip, index + len(self.images), index)), grey.device)
        return grey[rows], color[rows]

    @cached_property
    def _converted(self) -> tuple[Tensor, Tensor] | None:
        """Grey and colours of all images, followed by those of all flipped ones; None if that takes too much memory."""
        space, dtype = self.share.color_space, self.share.dtype
        copies = 2 if self.share.sampler.flip else 1
        needed = copies * self.images[:, 0].numel() * (1 + space.channels) * dtype.itemsize
        # Vector instructions round the last pixels otherwise: whole vectors per image give the bits of any batch.
        aligned = self.images[0, 0].numel() % _VECTOR == 0
        if self.layout is not None or not aligned or needed > _CONVERTED.get(self.images.device.type, 0):
            return None
        parts = [space.split(self.images[part], dtype) for part in in_batches(len(self.images), 64)]
        grey, color = (torch.cat(part) for part in zip(*parts, strict=True))
        return (grey, color) if copies == 1 else (torch.cat([grey, grey.flip(-1)]), torch.cat([color, color.flip(-1)]))

    def _crops(self, index: NDArray[np.int64], positions: NDArray[np.float64]) -> Tensor:
        if self.layout is None:
            return self.images[send(torch.from_numpy(index), self.images.device)]
        return self.layout.crops(self.images, index, positions)

    @property
    def nbytes(self) -> int:
        """Bytes of all that is held on the device."""
        return sum(each.nbytes for each in (self.images, *(self._converted or ())))

    def sample(self) -> Iterable[Tensor]:
        """All images, cropped at the centre: batches of uint8 [B, 3, H, W]."""
        count = len(self.images if self.layout is None else self.layout.sizes)
        for part in in_batches(count, 1024):
            index = np.arange(part.start, part.stop)
            yield self._crops(index, np.full((len(index), 2), CENTER))

    @property
    def digest(self) -> str:
        """Digest of the images and their order."""
        return image_digest(self.images)

    def close(self) -> None:
        """Do nothing: there are no worker processes."""


def load_resident(split: Split, share: Share, name: str = "", *, quiet: bool = True) -> ResidentLoader:
    """Load all images of a split onto the device: whole, if crops are random and it has them."""
    if not (share.sampler.random_crops and isinstance(split, UncroppedSplit)):
        return ResidentLoader(load(split, share.device, name, quiet=quiet), share)
    order = tqdm(range(len(split)), desc=f"loading {name}", disable=quiet or None)
    images = [split.uncropped(index) for index in order]
    layout = Layout(np.array([image.shape[:2] for image in images], np.int64), split.image_size)
    pixels = torch.from_numpy(np.concatenate([image.reshape(-1, 3) for image in images]))
    return ResidentLoader(pixels.to(share.device), share, layout)


def in_batches(length: int, size: int, rank: int = 0, world_size: int = 1) -> Iterator[slice]:
    """Slices of ``size`` out of ``length`` images, round-robin over the processes.

    Batch boundaries don't depend on the number of processes, so neither do the last bits of a network's output.
    """
    for start in range(rank * size, length, world_size * size):
        yield slice(start, min(start + size, length))
