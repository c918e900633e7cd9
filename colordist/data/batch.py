"""A batch: from the sampler's samples to the tensors that a task gets."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from colordist.color import ColorSpace
from colordist.data.sampler import Sampler, SampleSlice, micro_batches, share


@dataclass(frozen=True)
class Batch:
    """What a task gets."""

    grey: Tensor
    """[B, 1, H, W] in [-1, 1]."""
    target: Tensor
    """Target colours: [B, C, H, W], of about unit size. Of the images in ``grey``, unless training is unpaired."""
    uniforms: Tensor
    """Random numbers for the task's own use: [B, UNIFORMS], uniform in [0, 1), drawn by the sampler."""
    noise: Tensor
    """Noise for the generator: [B, candidates, *noise_shape], standard normal, drawn by the sampler."""
    target_grey: Tensor
    """The grey of the images in ``target``: [B, 1, H, W] in [-1, 1]. ``grey``, unless training is unpaired."""
    batch_index: Tensor
    """Index in the global batch: [B], integers."""

    def __len__(self) -> int:
        """How many images."""
        return len(self.grey)

    def __getitem__(self, part: slice) -> "Batch":
        """A slice of the images."""
        return Batch(**{name: value[part] for name, value in vars(self).items()})


@dataclass(frozen=True)
class Share:
    """One process's share of each step's global batch."""

    sampler: Sampler
    color_space: ColorSpace
    device: torch.device
    dtype: torch.dtype
    micro_batch_size: int | None
    rank: int
    world_size: int

    def sample_slices(self, step: int) -> list[SampleSlice]:
        """This process's samples of a step, in micro-batches of at most micro_batch_size."""
        whole = self.sampler.step(step)
        mine = whole[share(len(whole), self.rank, self.world_size)]
        return [mine[part] for part in micro_batches(len(mine), self.micro_batch_size)]

    def batch(self, sample_slice: SampleSlice, images: Callable[[NDArray[np.int64]], Tensor]) -> Batch:
        """The batch of some samples. images: from indices to uint8 [n, 3, H, W] on the device."""
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
        """Grey and colours of some images, flipped or not."""
        mirrored = send(torch.from_numpy(flip), self.device)[:, None, None, None]
        return self.color_space.split(torch.where(mirrored, rgb.flip(-1), rgb), self.dtype)


def send(values: Tensor, device: torch.device) -> Tensor:
    """Values on the device. From pageable memory a GPU may first finish what it is doing, while the host waits."""
    return (values.pin_memory() if device.type == "cuda" else values).to(device, non_blocking=True)
