"""Memory of a device, to refuse what can't fit before it is allocated."""

import os

import torch


def device_memory(device: str) -> int:
    """Memory of the first GPU, or of this machine, in bytes. device: its type."""
    if device == "cuda":
        return torch.cuda.get_device_properties(0).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def gib(count: float) -> str:
    """A number of bytes, for a message."""
    return f"{count / 2**30:,.1f} GiB"
