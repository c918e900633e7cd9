"""What a network is worth: its scores over the whole test split, beside floors and ceiling; and a grid to look at."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn

from colordist.color import ColorSpace, luma, to_8_bits
from colordist.config import Value
from colordist.data.loader import in_batches
from colordist.engine.runtime import Engine
from colordist.metrics.floors import REFERENCES, Reference
from colordist.metrics.metric import Metric, Pictures
from colordist.metrics.scorer import Scorer

Scores = dict[str, float]

_PIXELS = 2**16  # scored at once: 64 images of 32x32
_GRID = 16  # images in the sample grid


@dataclass(frozen=True)
class Evaluation:
    """What came of scoring a snapshot."""

    run: str
    step: int
    data: dict[str, Value]
    images: int
    """How many test images there were; those without any colour are not scored."""
    scores: Scores
    references: dict[str, Scores]
    """Scores of floors and ceiling, by name."""


@dataclass(frozen=True)
class Examiner:
    """Scores answers on the test split, shared among all processes.

    truth: uint8 [N, 3, H, W] on the device; objects: uint8 [N, H, W] there too, where the source marks them.
    """

    truth: Tensor
    objects: Tensor | None
    metrics: Sequence[Metric]
    color_space: ColorSpace
    engine: Engine

    def references(self, median_ab: tuple[float, float]) -> dict[str, Scores]:
        """Scores of the floors and the ceiling, by name. median_ab: the training split's."""

        def scores(reference: Reference) -> Scores:
            return self._scores(lambda rgb: reference.answer(rgb, median_ab))

        return {each.name: scores(each) for each in REFERENCES}

    def scores(self, generator: nn.Module) -> Scores:
        """A network's scores."""
        return self._scores(lambda rgb: self._colorize(generator, rgb))

    def grid(self, generator: nn.Module) -> Image.Image:
        """The first test images: rows grey, answer, truth; no gaps, so that a row is image_size pixels high."""
        rgb = self.truth[:_GRID]
        rows = [luma(rgb).expand_as(rgb), self._colorize(generator, rgb), rgb]
        picture = torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)
        return Image.fromarray(picture.permute(1, 2, 0).cpu().numpy())

    def _scores(self, answer: Callable[[Tensor], Tensor]) -> Scores:
        # A row a batch, added up in the order of batches: the same last bit on any number of processes.
        size = max(1, _PIXELS // (self.truth.shape[-1] * self.truth.shape[-2]))
        sums = torch.zeros(-(-len(self.truth) // size), len(Scorer(self.metrics).sums), dtype=torch.float64)
        for part in in_batches(len(self.truth), size, self.engine.rank, self.engine.world_size):
            scorer = Scorer(self.metrics)
            objects = None if self.objects is None else self.objects[part]
            scorer.update(Pictures(answer(self.truth[part]), self.truth[part], objects))
            sums[part.start // size] = scorer.sums
            self.engine.progress()
        scores = Scorer(self.metrics).scores(self.engine.sum(sums).sum(dim=0))
        return {name: score for name, score in scores.items() if not math.isnan(score)}

    @torch.no_grad()
    def _colorize(self, generator: nn.Module, rgb: Tensor) -> Tensor:
        """What a network makes of the grey of true images: uint8 [B, 3, H, W] to the same."""
        grey, _ = self.color_space.split(rgb, self.engine.dtype)
        return to_8_bits(self.color_space.join(grey, generator(grey)))
