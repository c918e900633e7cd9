"""A network in training: a module with its optimizer, its learning-rate schedule and its EMA copy."""

import copy
import math
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from colordist.engine.eager import Adam
from colordist.engine.environment import zero_stage
from colordist.models.parts import freeze, part_of
from colordist.models.spectral_norm import iterate_spectral_norm
from colordist.optimizers import OptimizerConfig, Part


def learning_rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """The learning rate of a step: a pure function, so there is no scheduler to step or save.

    step: from 0; steps: their number. Rises linearly over the warm-up, then follows the schedule.
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / (config.warmup_steps + 1)
    progress = min(1.0, (step - config.warmup_steps) / max(1, steps - config.warmup_steps))
    match config.schedule:
        case "constant":
            return config.lr
        case "linear":
            return config.lr * (1 - progress)
        case "cosine":
            return config.lr * 0.5 * (1 + math.cos(math.pi * progress))


class EMA:
    """An exponentially moving average of a module's weights: usually better than the weights themselves.

    Yazici et al. 2019 (arXiv 1806.04498). The half-life is counted in images, so it doesn't depend on the batch size,
    and is at most a twentieth of the images seen so far, so that short runs don't average over their random start
    (the ramp of StyleGAN2, arXiv 1912.04958). A half-life of 0 is a plain copy.
    """

    RAMP = 0.05

    def __init__(self, module: nn.Module, half_life: int) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self.half_life = half_life

    @torch.no_grad()
    def update(self, module: nn.Module, images: int, batch: int) -> None:
        """Update the average. batch: images since the last update; images: in total."""
        half_life = min(self.half_life, images * self.RAMP)
        decay = 0.5 ** (batch / half_life) if half_life > 0 else 0.0
        averages: list[Tensor] = list(self.module.parameters())
        weights: list[Tensor] = list(module.parameters())
        torch._foreach_lerp_(averages, weights, 1 - decay)
        pairs = list(zip(self.module.buffers(), module.buffers(), strict=True))
        for dtype in {average.dtype for average, _ in pairs}:  # mixed ones would be copied one by one
            copies, buffers = zip(*(pair for pair in pairs if pair[0].dtype == dtype), strict=True)
            torch._foreach_copy_(copies, buffers)


class Network:
    """A module with its optimizer, its learning-rate schedule and, for generators, its EMA copy."""

    def __init__(
        self,
        module: nn.Module,
        config: OptimizerConfig,
        steps: int,
        ema_images: int | None = None,
        frozen: Collection[Part] = (),
        lr_scales: Mapping[Part, float] | None = None,
    ) -> None:
        """ema_images: half-life of the EMA copy; None for no copy.

        frozen: parts that aren't trained. lr_scales: factors of the learning rate by part; 1 for all others.
        """
        self.module = module
        self.config = config
        self.steps = steps
        self.ema = EMA(module, ema_images) if ema_images is not None else None
        freeze(module, frozen)
        groups: dict[float, list[nn.Parameter]] = {}
        for name, parameter in module.named_parameters():
            part = part_of(module, name)
            if part not in frozen:
                groups.setdefault((lr_scales or {}).get(part, 1.0), []).append(parameter)
        self._lr_scales = tuple(groups)
        self.trainable_parameters = [parameter for group in groups.values() for parameter in group]
        # Fused: one kernel for all weights, which can skip the update by a flag on the device.
        betas, each = (config.beta1, config.beta2), [{"params": group} for group in groups.values()]
        # DeepSpeed asks for PyTorch's own class.
        kind = Adam if zero_stage() is None else torch.optim.Adam
        self.optimizer = kind(each, lr=config.lr, betas=betas, fused=True)

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step."""
        return learning_rate(self.config, step, self.steps)

    def begin_phase(self, step: int) -> None:
        """Set the step's learning rate, clear the gradients and iterate spectral norms."""
        for group, factor in zip(self.optimizer.param_groups, self._lr_scales, strict=True):
            group["lr"] = factor * self.learning_rate(step)
        self.optimizer.zero_grad(set_to_none=True)
        iterate_spectral_norm(self.module)

    def set_trainable(self, trainable: bool) -> None:
        """Set requires_grad of all parameters but those of frozen parts."""
        for parameter in self.trainable_parameters:
            parameter.requires_grad_(trainable)

    def trainable_parameter_count(self) -> int:
        """Number of trainable parameters."""
        return sum(parameter.numel() for parameter in self.trainable_parameters)

    @property
    def has_parts(self) -> bool:
        """Whether parts are frozen, or have learning rates of their own."""
        return len(self._lr_scales) > 1 or len(self.trainable_parameters) < len(list(self.module.parameters()))

    def state_dict(self) -> dict[str, Any]:
        """Everything that training changes."""
        state: dict[str, Any] = {"module": self.module.state_dict(), "optimizer": self.optimizer.state_dict()}
        if self.ema is not None:
            state["ema"] = self.ema.module.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict()``. Raises what torch raises when it doesn't fit."""
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        for parameter, moments in self.optimizer.state.items():
            for key, moment in moments.items():
                if moment.shape == parameter.shape:  # fused Adam assumes equal memory formats
                    moments[key] = torch.empty_like(parameter).copy_(moment)
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])
