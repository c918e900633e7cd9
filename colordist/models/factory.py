"""Build the networks of a run from its settings, with initial weights that depend on the seed alone."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from torch import nn

from colordist import registry
from colordist.color import ColorSpace
from colordist.config import DiscriminatorSettings, GeneratorSettings
from colordist.errors import UserError
from colordist.files.memory import device_memory, gib
from colordist.models.seeding import TooLarge, seeded

_Settings = GeneratorSettings | DiscriminatorSettings


def build_generator(
    settings: GeneratorSettings,
    inputs: int = 1,
    outputs: int | None = None,
    *,
    conditions: int = 0,
    time_conditioned: bool = False,
) -> nn.Module:
    """Build a generator with random weights.

    inputs, outputs: channels. Default: from grey to the color space's channels. conditions: how many of the
    inputs, the last ones, are no image, but colours on a path or hints. time_conditioned: with a time input.
    """
    channels = ColorSpace(settings.color_space).channels if outputs is None else outputs
    more: dict[str, Any] = {"time_conditioned": True} if time_conditioned else {}  # only ``has_time_input`` knows it
    if conditions and settings.has_condition_input:
        more["conditions"] = conditions
    network = registry.component("model", settings.name)(settings, inputs=inputs, outputs=channels, **more)
    return cast(nn.Module, network)


@dataclass(frozen=True)
class ModelFactory:
    """Factory of a task's networks."""

    seed: int
    """Each network adds its own offset, so that changing one doesn't change the initial weights of the others."""
    model: GeneratorSettings
    discriminator_settings: DiscriminatorSettings | None = None
    copies: int = 1
    """Tensors in memory for each weight, so many at least; 0: no limit to the size of a network."""

    def generator(
        self,
        offset: int = 0,
        inputs: int = 1,
        outputs: int | None = None,
        *,
        conditions: int = 0,
        time_conditioned: bool = False,
    ) -> nn.Module:
        """Build a network of the generator's architecture. Arguments: as for ``build_generator``."""
        build = partial(
            build_generator, self.model, inputs, outputs, conditions=conditions, time_conditioned=time_conditioned
        )
        return self._seeded("model", self.model, offset, build)

    def discriminator(self, offset: int, inputs: int, *, bias: bool = True) -> nn.Module:
        """Build a discriminator. inputs: total number of input channels. bias: of its last layer."""
        settings = self.discriminator_settings
        assert settings is not None, "the task's Settings must have has_discriminator"
        build = registry.component("discriminator", settings.name)
        make = partial(build, settings, inputs=inputs, bias=bias)
        return self._seeded("discriminator", settings, offset, lambda: cast(nn.Module, make()))

    def _seeded(self, section: str, settings: _Settings, offset: int, build: Callable[[], nn.Module]) -> nn.Module:
        """Build a network. Raises UserError, with its large settings, if this machine's memory is too small for it."""
        there = device_memory("cpu")
        try:
            return seeded(self.seed + offset, build, there / self.copies if self.copies else math.inf)
        except TooLarge:
            large = ", ".join(f"{section}.{key} {value}" for key, value in _large(settings).items())
            need = "its weights" if self.copies == 1 else f"{self.copies} numbers for each weight"
            raise UserError(f"{large}: {need} don't fit into the {gib(there)} of this machine: try less") from None


def _large(settings: _Settings) -> dict[str, object]:
    """Numbers above their defaults, by key; the name where there are none."""
    found: dict[str, object] = {}
    for field in dataclasses.fields(settings):
        value, usual = getattr(settings, field.name), field.default
        if type(value) is int and value > (usual if isinstance(usual, int) else 0):
            found[field.name] = value
    return found or {"name": settings.name}
