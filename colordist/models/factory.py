"""Build the networks of a run from its settings, with initial weights that depend on the seed alone."""

from dataclasses import dataclass
from typing import cast

from torch import nn

from colordist import registry
from colordist.color import ColorSpace
from colordist.config import DiscriminatorSettings, GeneratorSettings
from colordist.models.seeding import seeded


def build_generator(
    settings: GeneratorSettings, inputs: int = 1, outputs: int | None = None, *, time_conditioned: bool = False
) -> nn.Module:
    """Build a generator with random weights.

    inputs, outputs: channels. Default: from grey to the color space's channels. time_conditioned: with a time input.
    """
    channels = ColorSpace(settings.color_space).channels if outputs is None else outputs
    more = {"time_conditioned": True} if time_conditioned else {}  # only those with ``has_time_input`` know it
    network = registry.component("model", settings.name)(settings, inputs=inputs, outputs=channels, **more)
    return cast(nn.Module, network)


@dataclass(frozen=True)
class ModelFactory:
    """Factory of a task's networks."""

    seed: int
    """Each network adds its own offset, so that changing one doesn't change the initial weights of the others."""
    model: GeneratorSettings
    discriminator_settings: DiscriminatorSettings | None = None

    def generator(
        self, offset: int = 0, inputs: int = 1, outputs: int | None = None, *, time_conditioned: bool = False
    ) -> nn.Module:
        """Build a network of the generator's architecture. Arguments: as for ``build_generator``."""
        return seeded(
            self.seed + offset, lambda: build_generator(self.model, inputs, outputs, time_conditioned=time_conditioned)
        )

    def discriminator(self, offset: int, inputs: int, *, bias: bool = True) -> nn.Module:
        """Build a discriminator. inputs: total number of input channels. bias: of its last layer."""
        settings = self.discriminator_settings
        assert settings is not None, "the task's Settings must have has_discriminator"
        build = registry.component("discriminator", settings.name)
        return seeded(self.seed + offset, lambda: cast(nn.Module, build(settings, inputs=inputs, bias=bias)))
