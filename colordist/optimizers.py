"""Settings of optimizers, and the parts of a generator that may have learning rates of their own."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from colordist.errors import UserError
from colordist.ranges import MOST, above_zero, at_least, in_range

Part = Literal["encoder", "decoder"]
"""Part of a generator."""
PARTS: tuple[Part, ...] = ("encoder", "decoder")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Adam, and a learning rate schedule that is a function of the step."""

    lr: float = 1e-3
    """Peak learning rate."""
    beta1: float = 0.5
    """Adam: decay of the first moment."""
    beta2: float = 0.99
    """Adam: decay of the second moment."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Learning rate schedule after the warm-up; `linear` and `cosine` decay to 0 at the last step."""
    warmup_steps: int = 50
    """Linear learning rate warm-up from 0, counted in steps of the run (also for a network that starts later)."""
    clip_norm: float | None = None
    """Maximum gradient norm of the network (gradient clipping). Default: no clipping."""

    def check(self, key: str) -> None:
        """Raise UserError for a value out of range. key: the section, as in `optimizer.generator`."""
        above_zero(f"{key}.lr", self.lr, OptimizerConfig.lr)
        in_range(f"{key}.beta1", self.beta1, 0, 0.9999)
        in_range(f"{key}.beta2", self.beta2, 0, 0.99999)
        at_least(f"{key}.warmup_steps", self.warmup_steps, 0)
        if self.clip_norm is not None:
            above_zero(f"{key}.clip_norm", self.clip_norm, 1.0)


@dataclass(frozen=True, kw_only=True)
class GeneratorOptimizerConfig(OptimizerConfig):
    """Adam with learning rate factors for parts of the network."""

    lr_scales: dict[Part, float] = dataclasses.field(default_factory=dict)
    """Learning rate factors by part, e.g. {encoder: 0.1}. Default: 1 for both."""

    def check(self, key: str) -> None:
        """Raise UserError for a value out of range."""
        super().check(key)
        check_parts(f"{key}.lr_scales", [*self.lr_scales])
        for part, scale in self.lr_scales.items():
            if not 0 < scale <= MOST:
                raise UserError(
                    f"{key}.lr_scales has {part} {scale}, but must be above 0: to freeze that part, try "
                    f"train.freeze [{part}]"
                )


def check_parts(key: str, parts: list[Part]) -> None:
    """Raise UserError for what is no part of a generator."""
    for part in parts:
        if part not in PARTS:
            raise UserError(f"{key} has {part!r}, but the parts are {' and '.join(PARTS)}: try {PARTS[0]}")
