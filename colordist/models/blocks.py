"""What the networks are made of."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from colordist.config import Config, GeneratorSettings, at_least, divides, in_range

Norm = Literal["group", "instance", "none"]


@dataclass(frozen=True, kw_only=True)
class EncoderDecoderSettings(GeneratorSettings):
    """Settings of an encoder and a decoder."""

    width: int = 16
    """Channels at full resolution; doubled at each level, up to eight times this."""
    depth: int = 3
    """Levels of downsampling by 2."""
    bottleneck: int | None = None
    """Channels at the lowest resolution. Default: as width and depth give."""
    norm: Norm = "group"
    """Normalisation after each convolution."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("model.width", self.width, 4)
        in_range("model.depth", self.depth, 1, 8)
        at_least("model.bottleneck", self.bottleneck, 2)

    def check(self, config: Config) -> None:
        """Raise UserError where an image can't be downsampled that often."""
        super().check(config)
        divides("model.depth", self.depth, config.data.image_size)

    @property
    def size_multiple(self) -> int:
        """What height and width must be multiples of, in pixels."""
        return int(2**self.depth)


def normalisation(norm: Norm, channels: int) -> nn.Module:
    """The layer that a config's ``norm`` stands for."""
    match norm:
        case "group":
            # Never one channel a group: that would be instance normalisation.
            return nn.GroupNorm(
                max(groups for groups in range(1, 9) if channels % groups == 0 and channels >= 2 * groups), channels
            )
        case "instance":
            return InstanceNorm(channels, affine=True)
        case "none":
            return nn.Identity()


class InstanceNorm(nn.InstanceNorm2d):
    """The same, but with the right gradient for one image alone.

    Torch 2.15 on CPUs then takes a gradient in channels_last for one that isn't.
    """

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape."""
        answer = super().forward(input)
        if len(input) == 1 and answer.requires_grad:
            answer.register_hook(lambda gradient: gradient.contiguous())
        return answer


def convolution(inputs: int, outputs: int, norm: Norm, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps height and width, or divides them by the stride.

    Before instance normalisation it has no bias: that bias would be subtracted again, and its gradient, rounding noise,
    would be blown up by Adam.
    """
    bias = norm in ("group", "none")
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=(kernel - 1) // 2, bias=bias)


class ConvBlock(nn.Sequential):
    """Convolution, normalisation, SiLU. [B, inputs, H, W] -> [B, outputs, H/stride, W/stride]."""

    def __init__(self, inputs: int, outputs: int, norm: Norm, stride: int = 1) -> None:
        super().__init__(
            convolution(inputs, outputs, norm, stride=stride), normalisation(norm, outputs), nn.SiLU(inplace=True)
        )


class ResidualBlock(nn.Module):
    """Normalisation, SiLU, convolution, twice, added to the input (pre-activation: He et al. 2016, arXiv 1603.05027).

    [B, C, H, W] -> the same shape. The last convolution is zero at first, so the block begins as the identity and deep
    networks train as easily as shallow ones (arXiv 1901.09321).
    """

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            normalisation(norm, channels),
            nn.SiLU(),
            convolution(channels, channels, norm),
            normalisation(norm, channels),
            nn.SiLU(),
            zeroed(convolution(channels, channels, "none")),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape."""
        answer: Tensor = x + self.layers(x)
        return answer


class SelfAttention(nn.Module):
    """Each pixel takes from those that are like it, added to the input (Zhang et al. 2019, arXiv 1805.08318).

    [B, C, H, W] -> the same shape. One head: the levels where this is affordable have no more channels than others give
    to one. Time and, without a fused kernel, memory grow with the square of the number of pixels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = normalisation("group", channels)  # whatever the others do: unnormalised products grow out of hand
        # Without bias: a key's would add the same to all of a query's products: its gradient would be rounding noise.
        self.inward = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.outward = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape."""
        pixels = self.inward(self.norm(x)).flatten(2).transpose(1, 2).contiguous()  # [B, H W, 3 C]
        taken = F.scaled_dot_product_attention(*pixels[:, None].chunk(3, dim=-1))  # [B, 1, H W, C]
        answer: Tensor = x + self.outward(taken[:, 0].transpose(1, 2).reshape(x.shape))
        return answer


class Up(nn.Sequential):
    """Twice the height and width. [B, inputs, H, W] -> [B, outputs, 2H, 2W].

    Channels are mixed before, where there are fewer pixels; the convolution that follows smooths the result. No
    checkerboard, as transposed convolutions leave one: https://distill.pub/2016/deconv-checkerboard.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.Conv2d(inputs, outputs, 1), nn.Upsample(scale_factor=2, mode="nearest"))


def last_convolution(inputs: int, outputs: int) -> nn.Conv2d:
    """From features to colour. Zero at first, so that training starts from grey and not from a riot of colour."""
    return zeroed(nn.Conv2d(inputs, outputs, 1))


def zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    """The same layer, with which training starts as if it weren't there."""
    assert layer.bias is not None
    nn.init.zeros_(layer.weight)
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
