"""Square crops of images that are larger: of one in memory, or of many in one buffer on the device."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from colordist.data.batch import send
from colordist.data.sampler import CENTER


def corners(sizes: NDArray[np.int64], side: int, positions: NDArray[np.float64] | float) -> NDArray[np.int64]:
    """Top left corners of crops.

    sizes: heights and widths of the images, at least ``side``: [n, 2]. positions: in [0, 1), vertical and horizontal:
    [n, 2]. Uniform positions make all offsets equally likely. Returns rows and columns: [n, 2].
    """
    return np.floor(positions * (sizes - side + 1)).astype(np.int64)


def crop(image: NDArray[np.uint8], side: int, positions: NDArray[np.float64] | float = CENTER) -> NDArray[np.uint8]:
    """Crop an image [H, W, 3] to [side, side, 3], a view. positions: as of `corners`, [2]."""
    top, left = corners(np.array(image.shape[:2]), side, positions).tolist()
    return image[top : top + side, left : left + side]


def offsets(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number of pixels before each image in a buffer. sizes: heights and widths, [N, 2]. Returns [N]."""
    ends = np.cumsum(sizes[:, 0] * sizes[:, 1])
    return np.concatenate([np.zeros(1, np.int64), ends])[:-1]


@dataclass(frozen=True, eq=False)
class Layout:
    """Images of several sizes in one buffer of pixels, [P, 3]: one after the other, each row by row."""

    sizes: NDArray[np.int64]
    """Height and width of each image: [N, 2]."""
    side: int
    """Side of the crops."""

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """Number of pixels before each image: [N]."""
        return offsets(self.sizes)

    def crops(self, pixels: Tensor, index: NDArray[np.int64], positions: NDArray[np.float64]) -> Tensor:
        """Crop images on the device by one gather, without waiting for it.

        pixels: uint8 [P, 3]. index: of the images, [B]. positions: as of `corners`, [B, 2]. Returns uint8
        [B, 3, side, side].
        """
        sizes = self.sizes[index]
        top, left = corners(sizes, self.side, positions).T
        first = self.offsets[index] + top * sizes[:, 1] + left
        start, width = (
            send(torch.from_numpy(each), pixels.device)[:, None, None] for each in (first, sizes[:, 1].copy())
        )
        along = torch.arange(self.side, device=pixels.device)
        return pixels[start + along[:, None] * width + along].permute(0, 3, 1, 2).contiguous()
