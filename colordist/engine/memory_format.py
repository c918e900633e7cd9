"""The memory format in which a module is fastest on a device."""

import torch
from torch import nn

_BY_GROUP = (nn.GroupNorm, nn.InstanceNorm2d)


def fastest_format(module: nn.Module, device: str, *, tensor_cores: bool) -> torch.memory_format:
    """The memory format of a module's weights, which convolutions hand on to images.

    tensor_cores: whether convolutions run on them. They take channels_last, and so do a CPU's. But CUDA normalises
    contiguous images only: channels_last ones would be copied before each normalisation of groups and after it.
    """
    contiguous = device == "cuda" and not tensor_cores and any(isinstance(m, _BY_GROUP) for m in module.modules())
    return torch.contiguous_format if contiguous else torch.channels_last
