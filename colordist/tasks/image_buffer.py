"""Image buffer: a history of generated images for a discriminator (Shrivastava et al. 2017, arXiv 1612.07828, 2.3).

Each sample of the global batch has its own slots, so the content is independent of processes and micro-batches.
"""

import torch
from torch import Tensor

_EMPTY = torch.inf  # marks an empty slot


def empty_buffer(samples: int, slots: int, channels: int, size: int) -> Tensor:
    """An empty buffer: [samples, slots, channels, size, size]."""
    return torch.full((samples, slots, channels, size, size), _EMPTY)


def exchange(buffer: Tensor, fresh: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """Return each generated image or, with probability 0.5, an older one, which it replaces in the buffer.

    If the slot drawn is empty, the generated image fills it and is returned.

    buffer: [B, slots, C, H, W]; fresh: [B, C, H, W]; uniforms: [B, 2] in [0, 1). Returns images [B, C, H, W] and the
    updated buffer; the arguments are not changed.
    """
    fresh = fresh.to(buffer.dtype)
    index = torch.arange(len(buffer), device=buffer.device)
    slot = (uniforms[:, 1] * buffer.shape[1]).long()
    old = buffer[index, slot]
    empty = old == _EMPTY
    swap = (uniforms[:, 0] < 0.5)[:, None, None, None] & ~empty
    updated = buffer.clone()
    updated[index, slot] = fresh.where(swap | empty, old)
    return old.where(swap, fresh), updated
