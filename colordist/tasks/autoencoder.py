"""Task ``autoencoder``: one network learns to answer with colours near the true ones."""

from typing import Literal

from torch import Tensor

from colordist.data.loader import Batch
from colordist.network import Network
from colordist.tasks.losses import pixel_distance
from colordist.tasks.task import Calls, Loss


class AutoencoderTask:
    """Regression. Where several colours are equally likely, the best answer lies between them: it is dull."""

    generators: tuple[str, ...] = ("generator",)

    def __init__(self, generator: Network, pixel: Literal["l1", "l2"]) -> None:
        self.networks = {"generator": generator}
        self.pixel = pixel

    def phases(self, step: int) -> tuple[str, ...]:
        """There is only one network, so only one phase."""
        return ("generator",)

    def generate(self, calls: Calls, batch: Batch) -> Tensor:
        """Colour [B, C, H, W] from grey."""
        return calls["generator"](batch.grey)

    def loss(self, phase: str, calls: Calls, batch: Batch, color: Tensor, step: int) -> Loss:
        """Distance to the true colours."""
        distance = pixel_distance(self.pixel, color, batch.truth)
        return Loss(distance, {self.pixel: distance})
