"""Colour: luma, sRGB, CIE Lab, and the output spaces of networks.

All functions take tensors on any device, channels first, in at least float32: half precision would be coarser than the
8 bits of an image.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

# IEC 61966-2-1, linear RGB -> CIE XYZ, each row divided by the white point's X, Y or Z (D65, 2 degrees). The matrix and
# white point have the digits of scikit-image and kornia, for comparable scores; greys get |a|, |b| <= 0.011.
_RGB_TO_XYZ = torch.tensor(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]],
    dtype=torch.float64,
)
_WHITE = torch.tensor([[0.95047], [1.0], [1.08883]], dtype=torch.float64)
_RGB_TO_RELATIVE_XYZ: list[list[float]] = (_RGB_TO_XYZ / _WHITE).tolist()
_RELATIVE_XYZ_TO_RGB: list[list[float]] = torch.linalg.inv(_RGB_TO_XYZ / _WHITE).tolist()

_KNEE = 0.008856  # CIE 15: below this ratio the cube root becomes a straight line
_SLOPE = 7.787

# Scale of a and b in networks: colours of most photos are then of about unit size. (The sRGB gamut reaches 110; scaled
# by that, ordinary colours are too small for a spectrally normalised discriminator, which is 1-Lipschitz.)
AB_SCALE = 40.0

LUMA = (0.299, 0.587, 0.114)  # BT.601: weights of red, green and blue


def luma(rgb: Tensor) -> Tensor:
    """BT.601 luma rounded to 8 bits: the only input of every generator.

    Integer arithmetic, so the result is the same on every device.

    rgb: uint8 [..., 3, H, W]. Returns uint8 [..., 1, H, W].
    """
    red, green, blue = rgb.to(torch.int32).unbind(-3)
    weights = [round(1000 * weight) for weight in LUMA]
    return ((weights[0] * red + weights[1] * green + weights[2] * blue + 500) // 1000).to(torch.uint8).unsqueeze(-3)


def _mix(matrix: list[list[float]], image: Tensor) -> Tensor:
    """Apply a 3x3 matrix to the channels of [..., 3, H, W].

    Not a matmul, which would run in bfloat16 under autocast, or in TF32.
    """
    first, second, third = image.unbind(-3)
    return torch.stack([u * first + v * second + w * third for u, v, w in matrix], dim=-3)


def srgb_to_linear(rgb: Tensor) -> Tensor:
    """Undo the sRGB gamma (IEC 61966-2-1). Values in [0, 1], any shape."""
    return torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(linear: Tensor) -> Tensor:
    """Apply the sRGB gamma (IEC 61966-2-1). Negative values stay negative (out of gamut), any shape."""
    return torch.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear.clamp(min=0.0031308) ** (1 / 2.4) - 0.055)


def _lab_curve(ratio: Tensor) -> Tensor:
    return torch.where(ratio > _KNEE, ratio.clamp(min=_KNEE) ** (1 / 3), ratio * _SLOPE + 16 / 116)


def srgb_to_lab(rgb: Tensor) -> Tensor:
    """sRGB in [0, 1] to CIE Lab (D65): L in [0, 100], a and b within about +-110. Shape [..., 3, H, W]."""
    x, y, z = _lab_curve(_mix(_RGB_TO_RELATIVE_XYZ, srgb_to_linear(rgb))).unbind(-3)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=-3)


def lab_to_srgb(lab: Tensor) -> Tensor:
    """CIE Lab (D65) to sRGB, clipped to the gamut [0, 1]. Shape [..., 3, H, W]."""
    lightness, a, b = lab.unbind(-3)
    y = (lightness + 16) / 116
    curve = torch.stack([y + a / 500, y, y - b / 200], dim=-3)
    ratio = torch.where(curve > _KNEE ** (1 / 3), curve**3, (curve - 16 / 116) / _SLOPE)
    return linear_to_srgb(_mix(_RELATIVE_XYZ_TO_RGB, ratio)).clamp(0, 1)


def grey_to_lightness(grey: Tensor) -> Tensor:
    """Lab L in [0, 100] of grey pixels R = G = B = grey in [0, 1]. Any shape."""
    return 116 * _lab_curve(srgb_to_linear(grey)) - 16


def to_8_bits(rgb: Tensor) -> Tensor:
    """Round sRGB in [0, 1] to 8 bits, as in a file. Returns uint8."""
    return (rgb * 255).round().clamp(0, 255).to(torch.uint8)


@dataclass(frozen=True)
class ColorSpace:
    """Colour space of a network's output.

    ``lab``: two channels, a and b divided by AB_SCALE, added to the Lab L of the grey pixel, so no colour leaks in
    through L. About unit size, at most 2.8. ``rgb``: three channels, R, G and B scaled to [-1, 1].
    """

    name: Literal["lab", "rgb"]

    @property
    def channels(self) -> int:
        """Number of output channels."""
        return 2 if self.name == "lab" else 3

    def split(self, rgb: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Split images into grey input and target colours.

        rgb: uint8 [B, 3, H, W]; dtype: float32 or float64. Returns grey [B, 1, H, W] in [-1, 1], and colours
        [B, channels, H, W].
        """
        grey = luma(rgb).to(dtype) / 127.5 - 1
        color = rgb.to(dtype) / 255
        return grey, srgb_to_lab(color)[:, 1:] / AB_SCALE if self.name == "lab" else color * 2 - 1

    def image(self, grey: Tensor, color: Tensor) -> Tensor:
        """Colour image as input of an unconditional discriminator or a decolorizer.

        grey: [B, 1, H, W]; color: [B, channels, H, W]. Returns [B, 3, H, W]: grey, a and b; or R, G and B.
        """
        return torch.cat([grey, color], dim=1) if self.name == "lab" else color

    def colorless(self, grey: Tensor) -> Tensor:
        """A grey image in the colour space's channels, with zero chroma: [B, 1, H, W] -> [B, 3, H, W]."""
        if self.name == "rgb":
            return grey.expand(-1, 3, -1, -1)
        return self.image(grey, torch.zeros_like(grey).expand(-1, 2, -1, -1))

    def join(self, grey: Tensor, color: Tensor) -> Tensor:
        """Convert grey and a network's output to sRGB.

        grey: [B, 1, H, W] in [-1, 1]; color: [B, channels, H, W], any values, possibly in half precision. Returns sRGB
        [B, 3, H, W], clipped to [0, 1], in the dtype of grey.
        """
        color = color.to(grey.dtype)
        if self.name == "rgb":
            return (color + 1).div(2).clamp(0, 1)
        lightness = grey_to_lightness((grey + 1) / 2)
        return lab_to_srgb(torch.cat([lightness, color * AB_SCALE], dim=1))
