"""Settings that adversarial tasks share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from colordist.config import Config, TaskSettings
from colordist.errors import UserError
from colordist.optimizers import GeneratorOptimizerConfig, OptimizerConfig
from colordist.ranges import at_least, in_range


@dataclass(frozen=True, kw_only=True)
class AdversarialSettings(TaskSettings):
    """Settings of a task with a discriminator."""

    optimizers: ClassVar[Mapping[str, type[OptimizerConfig]]] = {
        "generator": GeneratorOptimizerConfig,
        "discriminator": OptimizerConfig,
    }
    has_discriminator: ClassVar[bool] = True

    adversarial_weight: float = 1.0
    """Weight of the generator's adversarial loss."""
    label_smoothing: float = 0.0
    """One-sided label smoothing: the discriminator's target for real is 1 minus this."""
    warmup_steps: int = 300
    """Steps at the start without discriminator and adversarial loss."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("task.adversarial_weight", self.adversarial_weight, 0)
        in_range("task.label_smoothing", self.label_smoothing, 0, 0.5)
        at_least("task.warmup_steps", self.warmup_steps, 0)

    def check(self, config: Config) -> None:
        """Raise UserError if the warm-up covers all of training."""
        super().check(config)
        if self.warmup_steps >= config.train.steps:
            raise UserError(
                f"task.warmup_steps is {self.warmup_steps}, but train.steps {config.train.steps}, so the "
                f"discriminator would never be trained: try task.warmup_steps {config.train.steps // 4}"
            )

    def require_warmup_loss(self, key: str, weight: float) -> None:
        """Raise UserError for a warm-up without a loss. key, weight: of the warm-up's loss."""
        if weight == 0 and self.warmup_steps > 0:
            raise UserError(
                f"task.warmup_steps is {self.warmup_steps}, but with {key} 0 there is no loss in the warm-up: "
                "try task.warmup_steps 0"
            )
