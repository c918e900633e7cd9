"""A pool of older generated images, so that a discriminator still knows what a generator has just stopped doing.

Shrivastava et al. 2017 (arXiv 1612.07828, section 2.3). Each place in the global batch has a few slots of its own, so
what is in them doesn't depend on how a batch is divided.
"""

import torch
from torch import Tensor

_EMPTY = torch.inf  # what stands in a slot that nothing has been put into


def empty_buffer(places: int, slots: int, channels: int, size: int) -> Tensor:
    """A pool without images: [places, slots, channels, size, size]."""
    return torch.full((places, slots, channels, size, size), _EMPTY)


def exchange(buffer: Tensor, fresh: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """Show each generated image, or, with probability one half, an older one, whose slot it then takes.

    As long as the slot that it draws is empty, it fills that, and is shown.

    pool: [B, slots, C, H, W]; fresh: [B, C, H, W]; chance: [B, 2], uniform in [0, 1). Returns what to show
    [B, C, H, W] and the pool afterwards; those given stay as they are.
    """
    fresh = fresh.to(buffer.dtype)
    place = torch.arange(len(buffer), device=buffer.device)
    slot = (uniforms[:, 1] * buffer.shape[1]).long()
    old = buffer[place, slot]
    empty = old == _EMPTY
    swap = (uniforms[:, 0] < 0.5)[:, None, None, None] & ~empty
    after = buffer.clone()
    after[place, slot] = fresh.where(swap | empty, old)
    return old.where(swap, fresh), after
