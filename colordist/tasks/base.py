"""Base class of tasks: networks, losses and phases, independent of processes, devices and precision.

A new task is one file: a ``Settings`` dataclass derived from ``TaskSettings``, and a class derived from ``Task``
(registry.py: how to register it).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from colordist.color import ColorSpace
from colordist.config import GeneratorSettings, TaskSettings
from colordist.data.batch import Batch
from colordist.models.factory import ModelFactory

Calls = Mapping[str, Callable[..., Tensor]]
"""Networks by name, to be called in a phase: the trainable one through its (DDP) wrapper, frozen ones bare.

The task's ``frozen`` modules are among them.
"""

Generated = Any
"""Output of a task's generators: colours [B, C, H, W], or several tensors. Opaque to all but the task."""


@dataclass(frozen=True)
class NetworkSpec:
    """A network and its training."""

    module: nn.Module
    optimizer: str = "generator"
    """Its settings section: `optimizer.NAME`."""
    ema: bool = False
    """Whether it has EMA weights, for evaluation and snapshots. `train.freeze` and `lr_scales` apply to it then."""


@dataclass(frozen=True)
class Loss:
    """Loss of a phase: ``total``, the scalar to minimise; its terms and diagnostics, by name, for the log."""

    total: Tensor
    terms: dict[str, Tensor]
    """Loss terms: scalars."""
    diagnostics: dict[str, Tensor] = field(default_factory=dict)
    """Other logged scalars, e.g. accuracies."""
    state: dict[str, Tensor] = field(default_factory=dict)
    """New rows of the task's ``state`` for the batch's samples. Discarded if the update is skipped."""


class Task:
    """Base class of tasks: by default one network, the generator, trained in one phase."""

    Settings: ClassVar[type[TaskSettings]] = TaskSettings
    generators: ClassVar[tuple[str, ...]] = ("generator",)
    """Networks that ``generate`` runs."""
    sampled: ClassVar[tuple[str, ...]] = ("generator",)
    """Networks that ``sample`` runs: those with EMA weights, which snapshots contain."""
    description: ClassVar[str] = ""
    """Completes "It was trained ..." in model cards."""
    unpaired: ClassVar[bool] = False
    """Whether grey images and target colours come from different images."""

    def __init__(self, settings: Any, model: GeneratorSettings) -> None:  # noqa: ANN401  of the class's Settings
        """settings: the task's; model: the generator's."""
        self.settings = settings
        self.model = model
        self.color_space = ColorSpace(model.color_space)
        self.networks: dict[str, NetworkSpec] = {}
        self.frozen: dict[str, nn.Module] = {}
        """Frozen modules that losses call, by name: on the device, neither trained nor saved. Set by ``build``."""
        self.state: dict[str, Tensor] = {}
        """State between steps besides the networks: tensors by name, with a row per sample of this process's share of
        the global batch (``Batch.share_index``). Checkpoints contain the rows of all processes."""

    # Training

    def build(self, factory: ModelFactory) -> dict[str, NetworkSpec]:
        """Build the networks, by name. Their initial weights must depend on the factory's seed alone."""
        return self.build_sampled(factory)

    def build_sampled(self, factory: ModelFactory) -> dict[str, NetworkSpec]:
        """Build only the networks that ``sample`` runs, to load a snapshot into."""
        generator = factory.generator(inputs=1 + self.hint_channels, conditions=self.hint_channels)
        return {"generator": NetworkSpec(generator, ema=True)}

    @property
    def hint_channels(self) -> int:
        """Channels of colour hints in the generator's input, colours and a mask; 0 for a task without."""
        return self.color_space.channels + 1 if self.settings.takes_hints else 0

    def initial_state(self, samples: int, image_size: int) -> dict[str, Tensor]:
        """Initial ``state`` of training: a row for each of so many samples, the same for all."""
        return {}

    @property
    def candidates(self) -> int:
        """Candidates per training image: the number of noise vectors drawn for each."""
        return 1

    def noise_shape(self, image_size: int) -> tuple[int, ...]:
        """Noise shape per sample; (0,) for a deterministic generator."""
        return (self.model.noise_size,)

    def phases(self, step: int) -> tuple[str, ...]:
        """Names of the networks trained in a step, in order: one phase each."""
        return ("generator",)

    def generate(self, calls: Calls, batch: Batch) -> Generated:
        """Run the generators on a batch.

        All phases of a step share the result. With gradient accumulation each phase recomputes it: so a phase must not
        depend on the output of a generator updated in an earlier phase of the step.
        """
        return None

    def loss(self, phase: str, calls: Calls, batch: Batch, generated: Generated, step: int) -> Loss:
        """Loss of the phase's network, averaged over the batch. generated: the result of ``generate``.

        Must be free of side effects: it may be called more than once.
        """
        raise NotImplementedError

    # Inference

    def sample(self, networks: Calls, grey: Tensor, noise: Tensor | None, hints: Tensor | None = None) -> Tensor:
        """Sample colours for grey images, for evaluation, colorize, sample grids, snapshots and export.

        networks: those named in ``sampled``. grey: [B, 1, H, W] in [-1, 1]. noise: [B * V, *noise_shape] for V samples
        per image, those of an image consecutive; None for a deterministic generator. hints: see ``hints.painted``,
        [B, C + 1, H, W]; None for none, or for a task without. Returns [B * V, C, H, W] in the task's color space.
        Default: one forward pass of the generator.
        """
        generator, inputs = networks["generator"], self.with_hints(grey, hints)
        return generator(inputs) if noise is None else generator(inputs, noise)

    def with_hints(self, grey: Tensor, hints: Tensor | None) -> Tensor:
        """Input of the generator: grey [B, 1, H, W], then the hints, all 0 where there are none."""
        if not self.hint_channels:
            return grey
        if hints is None:
            hints = torch.zeros_like(grey).expand(-1, self.hint_channels, -1, -1)
        return torch.cat([grey, hints], dim=1)

    @property
    def variants(self) -> int | None:
        """Number of distinct samples for one grey image; None: no limit."""
        return max(1, self.model.noise_size)

    def variant_noise(self, variant: int, grey: Tensor, seed: int = 0) -> Tensor | None:
        """Noise of one of the ``variants``: [B, *noise_shape], None for a deterministic generator.

        It must follow from its arguments. Default: a latent code, the same for every image and seed.
        """
        if self.model.noise_size == 0:
            return None
        code = F.one_hot(grey.new_tensor(variant).long(), self.model.noise_size)
        return code.to(grey).expand(len(grey), -1)
