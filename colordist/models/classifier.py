"""A network that says what an image shows. It judges colours; nothing is trained with it."""

from torch import Tensor, nn

FEATURES = 128
"""How many numbers it makes of an image before it names a class."""


def scaled(rgb: Tensor) -> Tensor:
    """What a classifier takes: uint8 [B, 3, H, W] to [-1, 1], as float32."""
    return rgb.float() / 127.5 - 1


class _ConvBlock(nn.Sequential):
    """Convolution, batch normalisation, SiLU. [B, inputs, H, W] -> [B, outputs, H/stride, W/stride]."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.SiLU(inplace=True)
        )


class _Residual(nn.Module):
    """A block whose result is added to what came in. [B, C, H, W] to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block = _ConvBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same."""
        added: Tensor = x + self.block(x)
        return added


class Classifier(nn.Module):
    """A small residual network (He et al. 2016, arXiv 1512.03385): seven convolutions, 0.57 million parameters.

    With batch normalisation: it is trained on one process, and then only used in eval mode.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _ConvBlock(3, 32),
            _ConvBlock(32, 64, stride=2),
            _Residual(64),
            _ConvBlock(64, FEATURES, stride=2),
            _Residual(FEATURES),
            _ConvBlock(FEATURES, FEATURES, stride=2),
            _Residual(FEATURES),
        )
        self.head = nn.Linear(FEATURES, classes)

    def features(self, rgb: Tensor) -> Tensor:
        """What it sees: sRGB [B, 3, H, W] in [-1, 1] to [B, FEATURES], the mean of each channel of its last layer."""
        seen: Tensor = self.body(rgb)
        return seen.mean(dim=(2, 3))

    def forward(self, rgb: Tensor) -> Tensor:
        """Logits: sRGB [B, 3, H, W] in [-1, 1] to [B, classes]."""
        logits: Tensor = self.head(self.features(rgb))
        return logits
