"""Image classifier for metrics of colours; never part of a training loss."""

from torch import Tensor, nn

FEATURES = 128
"""Length of the feature vector."""


def scaled(rgb: Tensor) -> Tensor:
    """Classifier input: uint8 [B, 3, H, W] -> float32 in [-1, 1]."""
    return rgb.float() / 127.5 - 1


class _ConvBlock(nn.Sequential):
    """Convolution, batch normalisation, SiLU. [B, inputs, H, W] -> [B, outputs, H/stride, W/stride]."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.SiLU(inplace=True)
        )


class _Residual(nn.Module):
    """Residual block. [B, C, H, W] -> the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block = _ConvBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape."""
        output: Tensor = x + self.block(x)
        return output


class Classifier(nn.Module):
    """A small residual network (He et al. 2016, arXiv 1512.03385): seven convolutions, 0.57 million parameters.

    With batch normalisation: it is trained on one process, and used in eval mode only.
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
        """Features: sRGB [B, 3, H, W] in [-1, 1] -> [B, FEATURES], globally average-pooled."""
        features: Tensor = self.body(rgb)
        return features.mean(dim=(2, 3))

    def forward(self, rgb: Tensor) -> Tensor:
        """Logits: sRGB [B, 3, H, W] in [-1, 1] -> [B, classes]."""
        logits: Tensor = self.head(self.features(rgb))
        return logits
