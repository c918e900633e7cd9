"""GroupNorm and SiLU in half precision: what autocast computes, in fewer passes."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from colordist.models.normalized_silu import normalized_silu


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_values_and_gradients_are_those_in_float32_rounded_once(
    dtype: torch.dtype, memory_format: torch.memory_format
) -> None:
    torch.manual_seed(0)
    norm = nn.GroupNorm(2, 8)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    image = torch.randn(3, 8, 4, 6).to(dtype).contiguous(memory_format=memory_format).requires_grad_()
    gradient = torch.randn(3, 8, 4, 6).to(dtype)
    inputs = (image, norm.weight, norm.bias)

    found = normalized_silu(image, norm)
    expected = F.silu(norm(image.float().contiguous())).to(dtype)
    assert torch.equal(found, expected)
    assert found.stride() == image.stride()
    gradients = zip(*(torch.autograd.grad(output, inputs, gradient) for output in (found, expected)), strict=True)
    for one, other in gradients:
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
