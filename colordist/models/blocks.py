"""Building blocks of the networks."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from colordist.config import Config, GeneratorSettings
from colordist.ranges import at_least, divides, in_range

Norm = Literal["group", "instance", "none"]


@dataclass(frozen=True, kw_only=True)
class EncoderDecoderSettings(GeneratorSettings):
    """Settings of an encoder-decoder network."""

    width: int = 16
    """Channels at full resolution; doubled at each level, up to eight times this."""
    depth: int = 3
    """Levels of downsampling by 2."""
    bottleneck: int | None = None
    """Channels at the lowest resolution. Default: from width and depth."""
    norm: Norm = "group"
    """Normalisation after each convolution."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("model.width", self.width, 4, 2**16)
        in_range("model.depth", self.depth, 1, 8)
        at_least("model.bottleneck", self.bottleneck, 2, 2**16)

    def check(self, config: Config) -> None:
        """Raise UserError if depth doesn't fit the image size."""
        super().check(config)
        divides("model.depth", self.depth, config.data.image_size)

    @property
    def size_multiple(self) -> int:
        """Height and width must be multiples of this, in pixels."""
        return int(2**self.depth)

    @property
    def full_size_channels(self) -> int:
        """Channels that features have at the size of the image."""
        return self.width


def normalisation(norm: Norm, channels: int) -> nn.Module:
    """Build the normalisation layer for a setting ``norm``."""
    match norm:
        case "group":
            # At least two channels per group: one would be instance normalisation.
            return nn.GroupNorm(
                max(groups for groups in range(1, 9) if channels % groups == 0 and channels >= 2 * groups), channels
            )
        case "instance":
            return InstanceNorm(channels, affine=True)
        case "none":
            return nn.Identity()


class InstanceNorm(nn.InstanceNorm2d):
    """InstanceNorm2d with a workaround for wrong gradients at batch size 1.

    torch 2.15 on CPUs then misreads the strides of a channels_last gradient.
    """

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape."""
        output = super().forward(input)
        if len(input) == 1 and output.requires_grad:
            output.register_hook(lambda gradient: gradient.contiguous())
        return output


def convolution(inputs: int, outputs: int, norm: Norm, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    """A convolution with "same" padding; the stride divides height and width.

    No bias before instance normalisation, which would subtract it again: its gradient would be rounding noise, which
    Adam rescales to full step size.
    """
    bias = norm in ("group", "none")
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=(kernel - 1) // 2, bias=bias)


class SiLU(nn.SiLU):
    """SiLU in place, unless a gradient needs the input: autograd would copy that first."""

    def forward(self, input: Tensor) -> Tensor:
        """Any shape -> the same."""
        return F.silu(input, inplace=not (torch.is_grad_enabled() and input.requires_grad))


class ConvBlock(nn.Sequential):
    """Convolution, normalisation, SiLU. [B, inputs, H, W] -> [B, outputs, H/stride, W/stride]."""

    def __init__(self, inputs: int, outputs: int, norm: Norm, stride: int = 1) -> None:
        super().__init__(convolution(inputs, outputs, norm, stride=stride), normalisation(norm, outputs), SiLU())


class ResidualBlock(nn.Module):
    """Normalisation, SiLU, convolution, twice, added to the input (pre-activation: He et al. 2016, arXiv 1603.05027).

    [B, C, H, W] -> the same shape. The last convolution is zero-initialised, so the block starts as the identity and
    deep networks train as easily as shallow ones (arXiv 1901.09321).
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
        output: Tensor = x + self.layers(x)
        return output


class SelfAttention(nn.Module):
    """Self-attention over pixels with a residual connection (Zhang et al. 2019, arXiv 1805.08318).

    [B, C, H, W] -> the same shape. One head: the levels where it is affordable have few channels. Time and, without a
    fused kernel, memory are quadratic in the number of pixels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = normalisation("group", channels)  # whatever ``norm`` is: unnormalised, the dot products diverge
        # Without bias: a key's cancels in the softmax, so its gradient would be rounding noise.
        self.inward = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.outward = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape."""
        pixels = self.inward(self.norm(x)).flatten(2).transpose(1, 2).contiguous()  # [B, H W, 3 C]
        attended = F.scaled_dot_product_attention(*pixels[:, None].chunk(3, dim=-1))  # [B, 1, H W, C]
        output: Tensor = x + self.outward(attended[:, 0].transpose(1, 2).reshape(x.shape))
        return output


class Up(nn.Sequential):
    """Upsampling by a factor f. [B, inputs, H, W] -> [B, outputs, f H, f W].

    The 1x1 convolution comes first, at the lower resolution; the convolution that follows the block smooths the result.
    Unlike transposed convolutions, no checkerboard artifacts: https://distill.pub/2016/deconv-checkerboard.
    """

    def __init__(self, inputs: int, outputs: int, factor: int = 2) -> None:
        super().__init__(nn.Conv2d(inputs, outputs, 1), nn.Upsample(scale_factor=factor, mode="nearest"))


def last_convolution(inputs: int, outputs: int) -> nn.Conv2d:
    """Convolution from features to colour, zero-initialised: training starts from grey."""
    return zeroed(nn.Conv2d(inputs, outputs, 1))


def zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    """Zero-initialise a layer's weight and bias."""
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
