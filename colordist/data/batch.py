"""Batches: the sampler's samples as tensors on the device."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from colordist.color import ColorSpace
from colordist.data.hints import hints_of, random_squares
from colordist.data.sampler import Sampler, SampleSlice, even_slices, share


@dataclass(frozen=True)
class Batch:
    """Input of a task: a micro-batch of B samples."""

    grey: Tensor
    """Grey input: [B, 1, H, W] in [-1, 1]."""
    target: Tensor
    """Target colours: [B, C, H, W], of about unit size; of the images in ``grey``, unless training is unpaired."""
    uniforms: Tensor
    """Uniform random numbers in [0, 1) for the task: [B, UNIFORMS]."""
    noise: Tensor
    """Generator noise, standard normal: [B, candidates, *noise_shape]."""
    target_grey: Tensor
    """Grey of the images in ``target``: [B, 1, H, W] in [-1, 1]; equals ``grey``, unless training is unpaired."""
    share_index: Tensor
    """Index in this process's share of the global batch, the row of the task's ``state``: int64 [B]."""
    hints: Tensor
    """Colour hints, see ``hints.painted``: [B, C + 1, H, W]; [B, 0, H, W] for a task without."""

    @property
    def inputs(self) -> Tensor:
        """Input of a generator: grey, then the hints, [B, 1 + hint channels, H, W]."""
        return torch.cat([self.grey, self.hints], dim=1) if self.hints.shape[1] else self.grey

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.grey)

    def __getitem__(self, part: slice) -> "Batch":
        """A slice of the samples."""
        return Batch(**{name: value[part] for name, value in vars(self).items()})


Images = Callable[[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]], tuple[Tensor, Tensor]]
"""Maps indices [n], positions of crops [n, 2] and whether to flip each [n] to grey input and target colours."""


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

    @property
    def rows(self) -> slice:
        """This process's samples, as a slice of the global batch."""
        return share(self.sampler.global_batch_size, self.rank, self.world_size)

    def sample_slices(self, step: int) -> list[SampleSlice]:
        """This process's samples of a step, in micro-batches of at most micro_batch_size."""
        local = self.sampler.step(step, self.rows)
        return [local[part] for part in even_slices(len(local), self.micro_batch_size)]

    def batch(self, step: int, sample_slice: SampleSlice, images: Images) -> Batch:
        """Build the batch of some samples of a step."""
        # Converted on the host: not every device has float64.
        uniforms = send(torch.from_numpy(sample_slice.uniforms).to(self.dtype), self.device)
        noise = send(torch.from_numpy(self.sampler.noise(step, sample_slice)).to(self.dtype), self.device)
        share_index = send(torch.from_numpy(sample_slice.batch_index - self.rows.start), self.device)
        grey, target = images(sample_slice.index, sample_slice.crop, sample_slice.flip)
        target_grey = grey
        if self.sampler.unpaired:
            target_grey, target = images(sample_slice.target_index, sample_slice.target_crop, sample_slice.target_flip)
        hints = self._hints(step, sample_slice, target)
        return Batch(grey, target, uniforms, noise, target_grey, share_index, hints)

    def _hints(self, step: int, sample_slice: SampleSlice, target: Tensor) -> Tensor:
        if not self.sampler.hints:
            return target[:, :0]
        squares = random_squares(self.sampler.hint_uniforms(step, sample_slice), *target.shape[2:])
        return hints_of(send(torch.from_numpy(squares), self.device), target)

    def flip_and_split(self, rgb: Tensor, flip: NDArray[np.bool_]) -> tuple[Tensor, Tensor]:
        """Flip the images marked in ``flip`` [B], and split all into grey input and target colours.

        rgb: uint8 [B, 3, H, W] on the device.
        """
        mirrored = send(torch.from_numpy(flip), self.device)[:, None, None, None]
        return self.color_space.split(torch.where(mirrored, rgb.flip(-1), rgb), self.dtype)


def send(values: Tensor, device: torch.device) -> Tensor:
    """Copy to the device without blocking the host: on GPUs through pinned memory."""
    return (values.pin_memory() if device.type == "cuda" else values).to(device, non_blocking=True)
