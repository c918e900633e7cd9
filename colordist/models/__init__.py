"""The networks. They know nothing of tasks, processes or files."""

from collections.abc import Callable
from functools import partial

from torch import nn

from colordist.color import ColorSpace
from colordist.config import DiscriminatorConfig, ModelConfig
from colordist.models.autoencoder import Autoencoder
from colordist.models.discriminator import Discriminator
from colordist.models.unet import UNet


def build_generator(config: ModelConfig) -> nn.Module:
    """The network that colours: grey [B, 1, H, W] -> colour [B, C, H, W], any values.

    With ``model.noise`` it takes noise [B * draws, numbers] too, and gives as many answers to each image, one after the
    other: [B * draws, C, H, W].
    """
    return _build_generator(config, 1, ColorSpace(config.color_space).channels, config.noise)


def build_decolorizer(config: ModelConfig) -> nn.Module:
    """The way back, of the same architecture: colour image [B, 3, H, W] -> grey [B, 1, H, W], any values."""
    return _build_generator(config, 3, 1, noise=0)


def _build_generator(config: ModelConfig, inputs: int, outputs: int, noise: int) -> nn.Module:
    unet = partial(UNet, blocks=config.blocks, attention_level=config.attention_level, noise=noise)
    architecture: Callable[..., nn.Module] = unet if config.name == "unet" else Autoencoder
    return architecture(
        inputs=inputs,
        outputs=outputs,
        width=config.width,
        depth=config.depth,
        bottleneck=config.bottleneck,
        norm=config.norm,
    )


def build_discriminator(
    config: DiscriminatorConfig, channels: int, *, conditional: bool = True, offset: bool = True
) -> nn.Module:
    """The network that judges: grey [B, 1, H, W] and colour [B, channels, H, W] -> logits.

    conditional: whether it is given the grey; else it judges an image [B, channels, H, W] by itself. offset: whether it
    may add the same to all logits.
    """
    return Discriminator(
        inputs=channels + conditional,
        width=config.width,
        depth=config.depth,
        output=config.output,
        norm=config.norm,
        spectral_norm=config.spectral_norm,
        offset=offset,
    )
