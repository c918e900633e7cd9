"""Builds the networks of a run from its settings. Their weights follow from the seed alone."""

from dataclasses import dataclass
from typing import cast

from torch import nn

from colordist import registry
from colordist.color import ColorSpace
from colordist.config import DiscriminatorSettings, GeneratorSettings
from colordist.models.seeding import seeded


def build_generator(settings: GeneratorSettings, inputs: int = 1, outputs: int | None = None) -> nn.Module:
    """The generator that some settings describe, with random weights.

    inputs, outputs: channels. By default from grey to what the color space has.
    """
    channels = ColorSpace(settings.color_space).channels if outputs is None else outputs
    return cast(nn.Module, registry.component("model", settings.name)(settings, inputs=inputs, outputs=channels))


@dataclass(frozen=True)
class ModelFactory:
    """Builds a task's networks."""

    seed: int
    """Each network adds an offset of its own, so that changing one leaves the weights of the others as they are."""
    model: GeneratorSettings
    discriminator_settings: DiscriminatorSettings | None = None

    def generator(self, offset: int = 0, inputs: int = 1, outputs: int | None = None) -> nn.Module:
        """A network of the generator's architecture. inputs, outputs: channels, by default from grey to colour."""
        return seeded(self.seed + offset, lambda: build_generator(self.model, inputs, outputs))

    def discriminator(self, offset: int, inputs: int, *, bias: bool = True) -> nn.Module:
        """A discriminator of images with so many channels. bias: of its last layer."""
        settings = self.discriminator_settings
        assert settings is not None, "the task's Settings must have has_discriminator"
        build = registry.component("discriminator", settings.name)
        return seeded(self.seed + offset, lambda: cast(nn.Module, build(settings, inputs=inputs, bias=bias)))
