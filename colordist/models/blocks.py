"""What the networks are made of."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from colordist.config import Norm


def normalisation(norm: Norm, channels: int) -> nn.Module:
    """The layer that a config's ``norm`` stands for."""
    match norm:
        case "group":
            # Never one channel a group: that would be instance normalisation.
            return nn.GroupNorm(
                max(groups for groups in range(1, 9) if channels % groups == 0 and channels >= 2 * groups), channels
            )
        case "instance":
            return nn.InstanceNorm2d(channels, affine=True)
        case "batch":
            return nn.BatchNorm2d(channels)
        case "none":
            return nn.Identity()


def convolution(inputs: int, outputs: int, norm: Norm, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps height and width, or divides them by the stride.

    Before instance and batch normalisation it has no bias: that bias would be subtracted again, and its gradient,
    rounding noise, would be blown up by Adam.
    """
    bias = norm in ("group", "none")
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=(kernel - 1) // 2, bias=bias)


class ConvBlock(nn.Sequential):
    """Convolution, normalisation, SiLU. [B, inputs, H, W] -> [B, outputs, H/stride, W/stride]."""

    def __init__(self, inputs: int, outputs: int, norm: Norm, stride: int = 1) -> None:
        super().__init__(
            convolution(inputs, outputs, norm, stride=stride), normalisation(norm, outputs), nn.SiLU(inplace=True)
        )


class Up(nn.Sequential):
    """Twice the height and width. [B, inputs, H, W] -> [B, outputs, 2H, 2W].

    Channels are mixed before, where there are fewer pixels; the convolution that follows smooths the result. No
    checkerboard, as transposed convolutions leave one: https://distill.pub/2016/deconv-checkerboard.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.Conv2d(inputs, outputs, 1), nn.Upsample(scale_factor=2, mode="nearest"))


def last_convolution(inputs: int, outputs: int) -> nn.Conv2d:
    """From features to colour. Zero at first, so that training starts from grey and not from a riot of colour."""
    layer = nn.Conv2d(inputs, outputs, 1)
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def level_widths(width: int, depth: int, bottleneck: int | None = None) -> list[int]:
    """Channels at each resolution, from full to lowest: doubled at each level, up to eight times the first."""
    widths = [width * min(2**level, 8) for level in range(depth + 1)]
    if bottleneck is not None:
        widths[-1] = bottleneck
    return widths


class SpectralNorm(nn.Module):
    """Divides a weight by its largest singular value (Miyato et al. 2018, arXiv 1802.05957, algorithm 1).

    Unlike ``torch.nn.utils.parametrizations.spectral_norm``, the power iteration does not run in ``forward`` but when
    told to, once a turn: so the result does not depend on how many micro-batches a step is computed in.
    """

    left: Tensor
    right: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        matrix = weight.flatten(1)
        self.register_buffer("left", F.normalize(torch.randn(matrix.shape[0]), dim=0))
        self.register_buffer("right", F.normalize(torch.randn(matrix.shape[1]), dim=0))
        for _ in range(15):
            self.iterate(weight)

    @torch.no_grad()
    def iterate(self, weight: Tensor) -> None:
        """One power iteration towards the singular vectors of the largest singular value."""
        matrix = weight.flatten(1)
        self.right.copy_(F.normalize(matrix.T @ self.left, dim=0))
        self.left.copy_(F.normalize(matrix @ self.right, dim=0))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight over its largest singular value; same shape."""
        with torch.autocast(weight.device.type, enabled=False):
            sigma = self.left @ (weight.flatten(1) @ self.right)
            return weight / sigma


def add_spectral_norm(module: nn.Module) -> None:
    """Put spectral normalisation on every convolution of a module."""
    for layer in list(module.modules()):
        if isinstance(layer, nn.Conv2d):
            parametrize.register_parametrization(layer, "weight", SpectralNorm(layer.weight))


def iterate_spectral_norm(module: nn.Module) -> None:
    """Let every spectral norm in a module follow its weight by one power iteration."""
    for layer in module.modules():
        if isinstance(layer, parametrize.ParametrizationList) and isinstance(layer[0], SpectralNorm):
            layer[0].iterate(layer.original)
