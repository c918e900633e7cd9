"""From the plan to batches on the device.

A training split that fits is held there whole, as uint8, and indexed there: no file is opened and no image decoded
while training. For others see streaming.py.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from colordist.color import ColorSpace
from colordist.data.sampler import Sampler, SampleSlice, micro_batches, share
from colordist.data.source import Split, StreamedSplit

_SAMPLE = 4096  # images


@dataclass(frozen=True)
class Batch:
    """What a task learns from."""

    grey: Tensor
    """[B, 1, H, W] in [-1, 1]."""
    target: Tensor
    """True colours: [B, C, H, W], of about unit size. Of the images in ``grey``, unless training is unpaired."""
    uniforms: Tensor
    """What a task decides by chance: [B, CHANCES], uniform in [0, 1), made by the plan."""
    noise: Tensor
    """What a generator takes for its choice among several answers: [B, draws, numbers], made by the plan."""
    target_grey: Tensor
    """The grey of the images that ``truth`` shows: [B, 1, H, W] in [-1, 1]. ``grey``, unless training is unpaired."""
    batch_index: Tensor
    """Where in the global batch each stands: [B], whole numbers."""

    def __len__(self) -> int:
        """How many images."""
        return len(self.grey)

    def __getitem__(self, part: slice) -> "Batch":
        """A slice of the images."""
        return Batch(**{name: value[part] for name, value in vars(self).items()})


def load(split: Split, device: torch.device, name: str = "", *, quiet: bool = True) -> Tensor:
    """All images of a split, uint8 [N, 3, H, W] on the device."""
    images = np.stack([split[i] for i in tqdm(range(len(split)), desc=f"loading {name}", disable=quiet or None)])
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().to(device)


def sample(split: Split, device: torch.device) -> Iterator[Tensor]:
    """Images enough to know what a split's colours are like: all, but of a streamed split the first few thousand.

    Batches of uint8 [B, 3, H, W] on the device.
    """
    count = min(len(split), _SAMPLE) if isinstance(split, StreamedSplit) else len(split)
    for part in in_batches(count, 256):
        images = np.stack([split[index] for index in range(part.start, part.stop)])
        yield torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().to(device)


def image_digest(images: Tensor) -> str:
    """Eight hexadecimal digits that stand for a split's images and their order."""
    return f"{zlib.crc32(images.cpu().numpy().data):08x}"


@dataclass(frozen=True)
class Share:
    """What falls to one process of each step's global batch, and in which form it is wanted."""

    sampler: Sampler
    color_space: ColorSpace
    device: torch.device
    dtype: torch.dtype
    micro_batch_size: int | None
    rank: int
    world_size: int

    def sample_slices(self, step: int) -> list[SampleSlice]:
        """This process's samples of a step, in portions of at most micro_batch_size."""
        whole = self.sampler.step(step)
        mine = whole[share(len(whole), self.rank, self.world_size)]
        return [mine[part] for part in micro_batches(len(mine), self.micro_batch_size)]

    def batch(self, sample_slice: SampleSlice, images: Callable[[NDArray[np.int64]], Tensor]) -> Batch:
        """What a task learns from a portion. images: from indices to uint8 [n, 3, H, W] on the device."""
        # Converted on this side: not every device has float64.
        uniforms = send(torch.from_numpy(sample_slice.uniforms).to(self.dtype), self.device)
        noise = send(torch.from_numpy(sample_slice.noise).to(self.dtype), self.device)
        batch_index = send(torch.from_numpy(sample_slice.batch_index), self.device)
        grey, target = self._split(images(sample_slice.index), sample_slice.flip)
        target_grey = grey
        if self.sampler.unpaired:
            target_grey, target = self._split(images(sample_slice.target_index), sample_slice.target_flip)
        return Batch(grey, target, uniforms, noise, target_grey, batch_index)

    def _split(self, rgb: Tensor, flip: NDArray[np.bool_]) -> tuple[Tensor, Tensor]:
        """Grey and colours of some images, mirrored or not."""
        mirrored = send(torch.from_numpy(flip), self.device)[:, None, None, None]
        return self.color_space.split(torch.where(mirrored, rgb.flip(-1), rgb), self.dtype)


def send(values: Tensor, device: torch.device) -> Tensor:
    """Values on the device. From pageable memory a GPU may first finish what it is doing, while the host waits."""
    return (values.pin_memory() if device.type == "cuda" else values).to(device, non_blocking=True)


class Loader(Protocol):
    """Gives each process its part of each step's global batch."""

    def micro_batches(self, step: int) -> list[Batch]:
        """This process's images of a step, in portions of at most micro_batch_size."""
        ...

    def sample(self) -> Iterable[Tensor]:
        """Images enough to know what the training split's colours are like: batches of uint8 [B, 3, H, W]."""
        ...

    @property
    def digest(self) -> str:
        """What stands for the training images and their order."""
        ...

    def close(self) -> None:
        """Let go of whatever else is at work for it."""
        ...


@dataclass(frozen=True)
class ResidentLoader:
    """A loader of images that are held on the device.

    images: uint8 [N, 3, H, W].
    """

    images: Tensor
    share: Share

    def micro_batches(self, step: int) -> list[Batch]:
        """This process's images of a step, in portions of at most micro_batch_size."""
        return [self.share.batch(sample_slice, self._images) for sample_slice in self.share.sample_slices(step)]

    def _images(self, index: NDArray[np.int64]) -> Tensor:
        return self.images[send(torch.from_numpy(index), self.images.device)]

    def sample(self) -> Iterable[Tensor]:
        """All images: batches of uint8 [B, 3, H, W]."""
        yield from self.images.split(1024)

    @property
    def digest(self) -> str:
        """What stands for the images and their order."""
        return image_digest(self.images)

    def close(self) -> None:
        """Nothing else is at work for it."""


def in_batches(length: int, size: int, rank: int = 0, world_size: int = 1) -> Iterator[slice]:
    """Slices of ``size`` out of ``length`` images, dealt out to the processes in turn.

    Where a slice begins doesn't depend on the number of processes, so neither does what a network makes of it: the
    last bits of an answer may depend on the batch it was computed in.
    """
    for start in range(rank * size, length, world_size * size):
        yield slice(start, min(start + size, length))
