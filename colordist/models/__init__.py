"""The networks. They know nothing of tasks, processes or files."""

from torch import nn

from colordist.color import ColorSpace
from colordist.config import DiscriminatorConfig, ModelConfig
from colordist.models.autoencoder import Autoencoder
from colordist.models.discriminator import Discriminator
from colordist.models.unet import UNet


def build_generator(config: ModelConfig) -> nn.Module:
    """The network that colours: grey [B, 1, H, W] -> colour [B, C, H, W], any values."""
    architecture = {"unet": UNet, "autoencoder": Autoencoder}[config.name]
    return architecture(
        outputs=ColorSpace(config.color_space).channels,
        width=config.width,
        depth=config.depth,
        bottleneck=config.bottleneck,
        norm=config.norm,
    )


def build_discriminator(config: DiscriminatorConfig, color_channels: int) -> nn.Module:
    """The network that judges: grey [B, 1, H, W] and colour [B, C, H, W] -> logits."""
    return Discriminator(
        color_channels=color_channels,
        width=config.width,
        depth=config.depth,
        output=config.output,
        norm=config.norm,
        spectral_norm=config.spectral_norm,
    )
