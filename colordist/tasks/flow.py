"""Task ``flow``: conditional flow matching, which draws colours from their distribution.

Lipman et al. 2022 (arXiv 2210.02747), Liu et al. 2022 (arXiv 2209.03003).
"""

import hashlib
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from colordist.config import Config
from colordist.data.batch import Batch
from colordist.data.sampler import variant_noise
from colordist.errors import UserError
from colordist.models.factory import ModelFactory
from colordist.ranges import above_zero, at_least
from colordist.tasks.base import Calls, Loss, NetworkSpec, Task
from colordist.tasks.hints import HintSettings


@dataclass(frozen=True, kw_only=True)
class FlowSettings(HintSettings):
    """Settings of the task ``flow``."""

    time: Literal["logit_normal", "uniform"] = "logit_normal"
    """Distribution of training times: `logit_normal` draws more of the middle (arXiv 2403.03206), or `uniform`."""
    shift: float = 1.0
    """Shift of all times towards noise: more for larger images (arXiv 2403.03206, section 5.3.2); 2 fits 32 pixels."""
    solver: Literal["euler", "heun"] = "heun"
    """ODE solver: `heun`, two evaluations of the network per step and one at the last, or `euler`, one per step."""
    solver_steps: int = 4
    """Solver steps from noise to colours."""

    def __post_init__(self) -> None:
        super().__post_init__()
        above_zero("task.shift", self.shift, 1.0)
        at_least("task.solver_steps", self.solver_steps, 1, 10_000)

    def check(self, config: Config) -> None:
        """Raise UserError for a generator without a time input, or with latent codes."""
        super().check(config)
        if not config.model.has_time_input:
            raise UserError(
                f"model.name {config.model.name} has no time input, which task flow needs: try model.name unet"
            )
        if config.model.noise_size:
            raise UserError(
                f"model.noise is {config.model.noise_size}, but task flow draws noise of its own: try model.noise 0"
            )


class FlowTask(Task):
    """One network, the velocity of straight paths from noise to colours: x(t) = (1 - t) noise + t colours.

    Its least-squares optimum at x(t) is the mean velocity of all paths through it, and following these velocities from
    noise ends in the distribution of colours given grey. The network's output is v(t) + x(t): at the start of the path
    that is the mean of all colours, so no noise has to pass through the network.
    """

    Settings = FlowSettings
    settings: FlowSettings
    description = "by conditional flow matching, on straight paths from noise to colours"

    def build_sampled(self, factory: ModelFactory) -> dict[str, NetworkSpec]:
        """The network: from grey, hints, colours on a path and the time to the velocity plus these colours."""
        conditions = self.color_space.channels + self.hint_channels
        network = factory.generator(inputs=1 + conditions, conditions=conditions, time_conditioned=True)
        return {"generator": NetworkSpec(network, ema=True)}

    def noise_shape(self, image_size: int) -> tuple[int, ...]:
        """That of colours: [C, image_size, image_size]."""
        return (self.color_space.channels, image_size, image_size)

    def loss(self, phase: str, calls: Calls, batch: Batch, generated: None, step: int) -> Loss:
        """Mean squared error of the velocity, each image at a time of its own."""
        noise, time = batch.noise[:, 0], self._times(batch.uniforms[:, 0])
        t = time.view(-1, 1, 1, 1)
        color = (1 - t) * noise + t * batch.target
        velocity = calls["generator"](torch.cat([batch.inputs, color], dim=1), time=time) - color
        loss = F.mse_loss(velocity, batch.target - noise)
        return Loss(loss, {"velocity": loss})

    def _times(self, uniform: Tensor) -> Tensor:
        """Training times from uniform random numbers: [B] in [0, 1]."""
        if self.settings.time == "uniform":
            return self._shifted(uniform)
        # Multiples of 2**-24, moved by half of that: 0 has no finite quantile.
        normal = 2**0.5 * torch.erfinv(2 * uniform - 1 + 2.0**-24)
        return self._shifted(normal.sigmoid())

    def _shifted(self, time: Tensor) -> Tensor:
        """Shift times towards 0. Noise of neighbouring pixels averages out, so more pixels need more of it."""
        return time / (time + self.settings.shift * (1 - time))

    def sample(self, networks: Calls, grey: Tensor, noise: Tensor | None, hints: Tensor | None = None) -> Tensor:
        """Integrate the velocity from noise to colours."""
        assert noise is not None, "flows start from noise"
        network: Any = networks["generator"]
        # A network with ``encode_grey`` computes once per image what depends on grey alone.
        features = network.encode_grey(grey) if hasattr(network, "encode_grey") else None
        inputs = self.with_hints(grey, hints)
        if noise.shape[0] != grey.shape[0]:
            variants = noise.shape[0] // grey.shape[0]
            inputs = inputs.repeat_interleave(variants, dim=0)
            features = features and [each.repeat_interleave(variants, dim=0) for each in features]
        more = {} if features is None else {"features": features}

        def velocity(color: Tensor, time: Tensor) -> Tensor:
            value: Tensor = network(torch.cat([inputs, color], dim=1), time=time.expand(inputs.shape[0]), **more)
            return value - color

        color = noise
        times = self._shifted(torch.linspace(0, 1, self.settings.solver_steps + 1, dtype=grey.dtype))
        for step, (start, end) in enumerate(pairwise(times.to(grey.device).unbind()), start=1):
            slope = velocity(color, start)
            # The last step is Euler's: at its end the network was hardly trained (arXiv 2206.00364, algorithm 1).
            if self.settings.solver == "heun" and step < self.settings.solver_steps:
                slope = (slope + velocity(color + (end - start) * slope, end)) / 2
            color = color + (end - start) * slope
        return color

    @property
    def variants(self) -> None:
        """None: unlimited."""
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
