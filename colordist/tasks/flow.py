"""Task ``flow``: conditional flow matching, which draws colours from their distribution.

Lipman et al. 2022 (arXiv 2210.02747), Liu et al. 2022 (arXiv 2209.03003).
"""

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from colordist.config import Config, TaskSettings, UserError, at_least
from colordist.data.batch import Batch
from colordist.data.sampler import variant_noise
from colordist.models.factory import ModelFactory
from colordist.tasks.base import Calls, Loss, NetworkSpec, Task


@dataclass(frozen=True, kw_only=True)
class FlowSettings(TaskSettings):
    """Settings of the task ``flow``."""

    time: Literal["logit_normal", "uniform"] = "logit_normal"
    """Distribution of training times: `logit_normal` draws more of the middle (arXiv 2403.03206), or `uniform`."""
    solver: Literal["euler", "heun"] = "euler"
    """Solver that samples: `euler`, one evaluation of the network a step, or `heun`, two."""
    solver_steps: int = 8
    """Steps of the solver from noise to colours."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("task.solver_steps", self.solver_steps, 1)

    def check(self, config: Config) -> None:
        """Raise UserError for a generator that takes no time, or latent codes."""
        super().check(config)
        if not config.model.takes_time:
            raise UserError(f"model.name {config.model.name} takes no time, which task flow needs: try model.name unet")
        if config.model.noise_size:
            raise UserError(
                f"model.noise is {config.model.noise_size}, but task flow draws noise of its own: try model.noise 0"
            )


class FlowTask(Task):
    """One network, the velocity of straight paths from noise to colours: x(t) = (1 - t) noise + t colours.

    Its least-squares optimum at x(t) is the mean velocity of all paths through it, and following these velocities from
    noise ends in the distribution of colours given grey.
    """

    Settings = FlowSettings
    settings: FlowSettings
    description = "by conditional flow matching, on straight paths from noise to colours"

    def build_sampled(self, factory: ModelFactory) -> dict[str, NetworkSpec]:
        """The velocity network: from grey, colours on a path, and the time."""
        network = factory.generator(inputs=1 + self.color_space.channels, timed=True)
        return {"generator": NetworkSpec(network, ema=True)}

    def noise_shape(self, image_size: int) -> tuple[int, ...]:
        """That of colours."""
        return (self.color_space.channels, image_size, image_size)

    def loss(self, phase: str, calls: Calls, batch: Batch, generated: None, step: int) -> Loss:
        """Mean squared error of the velocity, each image at a time of its own."""
        noise, time = batch.noise[:, 0], self._time(batch.uniforms[:, 0])
        where = time.view(-1, 1, 1, 1)
        color = (1 - where) * noise + where * batch.target
        velocity = calls["generator"](torch.cat([batch.grey, color], dim=1), time=time)
        loss = F.mse_loss(velocity, batch.target - noise)
        return Loss(loss, {"velocity": loss})

    def _time(self, uniform: Tensor) -> Tensor:
        """Training times from uniform numbers: [B] in [0, 1)."""
        if self.settings.time == "uniform":
            return uniform
        # Multiples of 2**-24, moved by half of that: 0 has no finite quantile.
        return torch.special.ndtri(uniform + 2.0**-25).sigmoid()

    def sample(self, networks: Calls, grey: Tensor, noise: Tensor | None) -> Tensor:
        """Follow the velocity from noise to colours, by ``solver_steps`` steps of the solver."""
        assert noise is not None, "flows start from noise"
        network: Any = networks["generator"]
        # What depends on grey alone is computed once per image.
        features = network.encode(grey) if hasattr(network, "encode") else None
        if noise.shape[0] != grey.shape[0]:
            variants = noise.shape[0] // grey.shape[0]
            grey = grey.repeat_interleave(variants, dim=0)
            features = features and [each.repeat_interleave(variants, dim=0) for each in features]
        more = {} if features is None else {"features": features}

        def velocity(color: Tensor, time: float) -> Tensor:
            times = grey.new_full((grey.shape[0],), time)
            value: Tensor = network(torch.cat([grey, color], dim=1), time=times, **more)
            return value

        color, steps = noise, self.settings.solver_steps
        for step in range(steps):
            slope = velocity(color, step / steps)
            if self.settings.solver == "heun":
                slope = (slope + velocity(color + slope / steps, (step + 1) / steps)) / 2
            color = color + slope / steps
        return color

    @property
    def variants(self) -> None:
        """Any number."""
        return None

    def variant_noise(self, variant: int, grey: Tensor, seed: int = 0) -> Tensor:
        """Noise that follows from the pixels of each grey image: the same photograph, the same colours."""
        shape = (self.color_space.channels, *grey.shape[2:])
        pixels = ((grey + 1) * 127.5).round().to(torch.uint8).cpu().numpy()
        noise = [variant_noise(_digest(each, seed), variant, shape) for each in pixels]
        return torch.from_numpy(np.stack(noise)).to(grey.dtype).to(grey.device)


def _digest(pixels: NDArray[np.uint8], seed: int) -> int:
    """64 bits of the SHA-256 of a seed and an image."""
    digest = hashlib.sha256(f"{seed} ".encode() + pixels.tobytes())
    return int.from_bytes(digest.digest()[:8], "little")
