"""Task ``autoencoder``: one network learns to answer with colours near the true ones."""

from typing import Literal

from torch import Tensor, nn

from colordist.data.loader import Batch
from colordist.tasks.base import Calls, Loss, NetworkSpec
from colordist.tasks.candidates import answers, nearest
from colordist.tasks.losses import pixel_distance


class AutoencoderTask:
    """Regression. Where several colours are equally likely, the best answer lies between them: it is dull.

    With several draws of noise only the nearest answer counts, so each may be one of those colours.
    """

    generators: tuple[str, ...] = ("generator",)

    def __init__(self, generator: nn.Module, pixel: Literal["l1", "l2"]) -> None:
        self.networks = {"generator": NetworkSpec(generator, "generator", ema=True)}
        self.state: dict[str, Tensor] = {}
        self.pixel = pixel

    def phases(self, step: int) -> tuple[str, ...]:
        """There is only one network, so only one phase."""
        return ("generator",)

    def generate(self, calls: Calls, batch: Batch) -> Tensor:
        """Colours from grey: [B * draws, C, H, W]."""
        return answers(calls["generator"], batch)

    def loss(self, phase: str, calls: Calls, batch: Batch, color: Tensor, step: int) -> Loss:
        """Distance to the true colours, of the answer that is nearest to them."""
        distance = pixel_distance(self.pixel, nearest(self.pixel, color, batch), batch.target)
        return Loss(distance, {self.pixel: distance})
