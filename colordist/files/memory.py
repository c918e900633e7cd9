"""Memory of a device, to refuse what can't fit before it is allocated."""

import os

import torch

from colordist.errors import UserError


def device_memory(device: str) -> int:
    """Memory of the first GPU, or of this machine, in bytes. device: its type."""
    if device == "cuda":
        return torch.cuda.get_device_properties(0).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def require_memory(needed: int, device: str, what: str, way_out: str) -> None:
    """Raise UserError for more bytes than a device has. device: its type. what: what needs them, in the plural."""
    if needed > (there := device_memory(device)):
        raise UserError(f"{what} take more than {gib(needed)}, but there are {gib(there)}: {way_out}")


def gib(count: float) -> str:
    """A number of bytes, for a message."""
    return f"{count / 2**30:,.1f} GiB"
