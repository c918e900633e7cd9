"""Scores of a network over the whole test split, beside reference answers; and a grid of samples."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from PIL import Image
from torch import Tensor

from colordist.color import ColorSpace, luma, to_8_bits
from colordist.config import Value
from colordist.data.loader import in_batches
from colordist.engine.runtime import Engine
from colordist.metrics.baselines import REFERENCES, Reference
from colordist.metrics.features import FeatureScores
from colordist.metrics.metric import EvalBatch, Metric
from colordist.metrics.scorer import Scorer
from colordist.metrics.specs import ScoreSpecs, score_specs

Scores = dict[str, float]
Sample = Callable[[Tensor, Tensor | None], Tensor]
"""``Task.sample`` of some networks: from grey and noise to colours."""

_PIXELS = 2**16  # scored at once: 64 images of 32x32
_GRID = 16  # images in the sample grid

VARIANTS = 4
"""Predictions per image that are scored where the generator takes noise."""


@dataclass(frozen=True)
class Evaluation:
    """The scores of a snapshot."""

    run: str
    step: int
    data: dict[str, Value]
    images: int
    """Number of test images; those without any colour are not scored."""
    scores: Scores
    references: dict[str, Scores]
    """Scores of the reference answers, by name."""
    specs: ScoreSpecs
    """What the scores are."""
    networks: list[str]
    """Identifies each network whose features were compared."""


@dataclass(frozen=True)
class Evaluator:
    """Scores predictions on the test split, shared among all processes.

    target: uint8 [N, 3, H, W] on the device; objects: uint8 [N, H, W] there too, where the source marks them; noise:
    [N, VARIANTS, *noise_shape], for tasks that need it.
    """

    target: Tensor
    objects: Tensor | None
    noise: Tensor | None
    metrics: Sequence[Metric | FeatureScores]
    color_space: ColorSpace
    engine: Engine

    @property
    def specs(self) -> ScoreSpecs:
        """What the scores are."""
        return score_specs([spec for each in self.metrics for spec in each.specs], REFERENCES)

    @property
    def features(self) -> list[FeatureScores]:
        """The metrics that compare features of all images."""
        return [each for each in self.metrics if isinstance(each, FeatureScores)]

    def references(self, median_ab: tuple[float, float]) -> dict[str, Scores]:
        """Scores of the reference answers, by name. median_ab: the training split's."""

        def scores(reference: Reference) -> Scores:
            return self._scores(lambda part: reference.answer(self.target[part], median_ab).unsqueeze(1))

        return {each.name: scores(each) for each in REFERENCES}

    def scores(self, sample: Sample) -> Scores:
        """A network's scores."""
        return self._scores(lambda part: self._colorize(sample, part))

    def grid(self, sample: Sample) -> Image.Image:
        """The first test images: rows grey, prediction, target; no gaps, so that a row is image_size pixels high."""
        rgb = self.target[:_GRID]
        rows = [luma(rgb).expand_as(rgb), self._colorize(sample, slice(_GRID))[:, 0], rgb]
        picture = torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)
        return Image.fromarray(picture.permute(1, 2, 0).cpu().numpy())

    def _scores(self, answer: Callable[[slice], Tensor]) -> Scores:
        """answer: from a slice of the test split to several predictions each, uint8 [B, V, 3, H, W]."""
        # A row a batch, added up in the order of batches: the same last bit on any number of processes.
        sums = torch.zeros(-(-len(self.target) // self._size), len(self._scorer().sums), dtype=torch.float64)
        features = self._no_features()
        for part in self._parts():
            scorer, answers = self._scorer(), answer(part)
            objects = None if self.objects is None else self.objects[part]
            variants = answers if answers.shape[1] > 1 else None
            scorer.update(EvalBatch(answers[:, 0], self.target[part], objects, variants))
            sums[part.start // self._size] = scorer.sums
            self._extract(answers[:, 0], part, features)
        scores = self._scorer().scores(self.engine.sum(sums).sum(dim=0)) | self._compare(features)
        return {name: score for name, score in scores.items() if not math.isnan(score)}

    def _scorer(self) -> Scorer:
        return Scorer([each for each in self.metrics if isinstance(each, Metric)])

    @property
    def _size(self) -> int:
        """Images that are scored at once."""
        return max(1, _PIXELS // (self.target.shape[-1] * self.target.shape[-2]))

    def _parts(self) -> Iterator[slice]:
        """This process's batches of the test split."""
        for part in in_batches(len(self.target), self._size, self.engine.rank, self.engine.world_size):
            yield part
            self.engine.progress()

    def _no_features(self) -> list[Tensor]:
        """Zeros [N, width] for each network: the rows of other processes are added later."""
        return [torch.zeros(len(self.target), each.width, dtype=torch.float64) for each in self.features]

    def _extract(self, rgb: Tensor, part: slice, features: list[Tensor]) -> None:
        """Fill in the rows of a batch. rgb: uint8 [B, 3, H, W]."""
        for each, rows in zip(self.features, features, strict=True):
            rows[part] = each.features(rgb).cpu().double()

    @cached_property
    def _target_features(self) -> list[Tensor]:
        """The features of the targets: computed once."""
        features = self._no_features()
        for part in self._parts():
            self._extract(self.target[part], part, features)
        return [self.engine.sum(rows) for rows in features]

    def _compare(self, features: list[Tensor]) -> Scores:
        """Scores from features of predictions and targets; images without any colour are left out."""
        red, green, blue = self.target.unbind(1)
        indices = ((red != green) | (green != blue)).flatten(1).any(dim=1).nonzero().flatten().cpu()
        scores: Scores = {}
        for each, rows, target in zip(self.features, features, self._target_features, strict=True):
            found = each.scores(self.engine.sum(rows)[indices], target[indices], indices)
            scores |= dict(zip([spec.name for spec in each.specs], found, strict=True))
        return scores

    @torch.no_grad()
    def _colorize(self, sample: Sample, part: slice) -> Tensor:
        """A network's predictions for a slice of the test split: uint8 [B, V, 3, H, W]."""
        grey, _ = self.color_space.split(self.target[part], self.engine.dtype)
        color = sample(grey, None if self.noise is None else self.noise[part].flatten(0, 1))
        answers = len(color) // len(grey)
        picture = self.color_space.join(grey.repeat_interleave(answers, dim=0), color)
        return to_8_bits(picture).view(len(grey), answers, *picture.shape[1:])
