"""What a task is: its networks, its losses, its phases. It knows nothing of processes, devices or precision.

A task of your own is a class in one file: a ``Settings`` dataclass derived from ``TaskSettings``, and a class derived
from ``Task`` (registry.py says how it gets its name).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from colordist.color import ColorSpace
from colordist.config import GeneratorSettings, TaskSettings
from colordist.data.batch import Batch
from colordist.models.factory import ModelFactory

Calls = Mapping[str, Callable[..., Tensor]]
"""The networks as they may be called in a phase: the trainable one through its wrapper, the frozen ones bare."""

Generated = Any
"""What a task's generators answered: colours [B, C, H, W], or several tensors. Only the task looks inside."""


@dataclass(frozen=True)
class NetworkSpec:
    """A network and how it is trained."""

    module: nn.Module
    optimizer: str = "generator"
    """The section `optimizer.NAME` with its settings."""
    ema: bool = False
    """Whether it has EMA weights, which are evaluated and saved. `train.freeze` and `lr_scales` apply to these."""


@dataclass(frozen=True)
class Loss:
    """The loss of a phase: ``total``, a scalar, which is minimised; and its parts by name, for the log."""

    total: Tensor
    parts: dict[str, Tensor]
    """Losses: scalars."""
    diagnostics: dict[str, Tensor] = field(default_factory=dict)
    """What else is logged: scalars, e.g. accuracies."""
    state: dict[str, Tensor] = field(default_factory=dict)
    """New rows of the task's ``state`` for the batch's samples. Dropped if the update is skipped."""


class Task:
    """Base class of tasks: one network, the generator, that is trained in one phase."""

    Settings: ClassVar[type[TaskSettings]] = TaskSettings
    generators: ClassVar[tuple[str, ...]] = ("generator",)
    """The networks that ``generate`` runs."""
    sampled: ClassVar[tuple[str, ...]] = ("generator",)
    """The networks that ``sample`` runs: those with EMA weights. Snapshots hold them."""
    description: ClassVar[str] = ""
    """What it is trained by, after "It was trained": for model cards."""
    unpaired: ClassVar[bool] = False
    """Whether grey images and target colours come from different images."""

    def __init__(self, settings: Any, model: GeneratorSettings) -> None:  # noqa: ANN401  of the class's Settings
        """settings: the task's; model: the generator's."""
        self.settings = settings
        self.model = model
        self.color_space = ColorSpace(model.color_space)
        self.networks: dict[str, NetworkSpec] = {}
        self.state: dict[str, Tensor] = {}
        """What it keeps from step to step beside its networks: by name, a row for each sample of the global batch. A
        process knows and changes the rows of its own samples only; checkpoints hold all of them."""

    # Training

    def build(self, factory: ModelFactory) -> dict[str, NetworkSpec]:
        """The networks, by name. Their weights must follow from the seed that the factory is given."""
        return self.build_sampled(factory)

    def build_sampled(self, factory: ModelFactory) -> dict[str, NetworkSpec]:
        """Only the networks that ``sample`` runs, to be filled with a snapshot's weights."""
        return {"generator": NetworkSpec(factory.generator(), ema=True)}

    def initial_state(self, global_batch_size: int, image_size: int) -> dict[str, Tensor]:
        """The ``state`` that training starts from."""
        return {}

    @property
    def candidates(self) -> int:
        """How many answers the generator gives to each training image: as many noise vectors are drawn."""
        return 1

    def noise_shape(self, image_size: int) -> tuple[int, ...]:
        """Shape of the noise for one answer to one image; (0,) where none is needed."""
        return (self.model.noise_size,)

    def phases(self, step: int) -> tuple[str, ...]:
        """The networks that are trained in a step, in order: one phase each."""
        return ("generator",)

    def generate(self, calls: Calls, batch: Batch) -> Generated:
        """Run the generators on a batch.

        All phases of a step see the same result. With gradient accumulation each phase runs them again: so a phase must
        not depend on the result of a generator that was updated in an earlier phase of the step.
        """
        return None

    def loss(self, phase: str, calls: Calls, batch: Batch, generated: Generated, step: int) -> Loss:
        """The loss of the phase's network, averaged over the batch. generated: the result of ``generate``.

        It must not change anything: it may be called more than once.
        """
        raise NotImplementedError

    # Inference

    def sample(self, networks: Calls, grey: Tensor, noise: Tensor | None) -> Tensor:
        """From grey to colours: the one way in evaluation, colorize, sample grids, snapshots and export.

        networks: those named in ``sampled``. grey: [B, 1, H, W] in [-1, 1]. noise: [B * V, *noise_shape] for V answers
        to each image, one after the other; None where the task needs none. Returns [B * V, C, H, W], C and range as the
        color space says. By default one pass of the generator.
        """
        generator = networks["generator"]
        return generator(grey) if noise is None else generator(grey, noise)

    @property
    def variants(self) -> int:
        """How many different answers there are to one grey image."""
        return max(1, self.model.noise_size)

    def variant_noise(self, variant: int, grey: Tensor) -> Tensor | None:
        """The noise for one of the ``variants``, the same for every image: [B, *noise_shape]."""
        if self.model.noise_size == 0:
            return None
        code = F.one_hot(grey.new_tensor(variant).long(), self.model.noise_size)
        return code.to(grey).expand(len(grey), -1)
