"""Memory formats: contiguous only where CUDA would copy images before each normalisation."""

import pytest
import torch
from torch import nn

from colordist.engine.memory_format import fastest_format
from colordist.models.blocks import ConvBlock, Norm


@pytest.mark.parametrize(
    ("norm", "device", "tensor_cores", "contiguous"),
    [
        ("group", "cuda", False, True),
        ("instance", "cuda", False, True),
        ("none", "cuda", False, False),
        ("group", "cuda", True, False),
        ("group", "cpu", False, False),
    ],
)
def test_contiguous_only_where_that_saves_copies(norm: Norm, device: str, tensor_cores: bool, contiguous: bool) -> None:
    found = fastest_format(nn.Sequential(ConvBlock(4, 4, norm)), device, tensor_cores=tensor_cores)
    assert found == (torch.contiguous_format if contiguous else torch.channels_last)
