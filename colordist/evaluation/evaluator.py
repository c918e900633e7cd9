"""Evaluation of networks, baselines and oracle on the whole test split, and the sample grid."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from colordist.color import ColorSpace, luma, to_8_bits
from colordist.config import Value
from colordist.data.hints import SIDE, hints_of, squares
from colordist.data.loader import in_batches
from colordist.data.sampler import hint_positions, variant_noise
from colordist.engine.runtime import Engine
from colordist.evaluation.set_scores import Metrics, Scores, SetFeatures, SetScores
from colordist.metrics.baselines import REFERENCES, Reference
from colordist.metrics.features import FeatureScores
from colordist.metrics.metric import EvalBatch, has_color
from colordist.metrics.specs import ScoreSpecs, score_specs

Sample = Callable[..., Tensor]
"""``Task.sample`` with bound networks: from grey, noise and, if there are any, hints to colours."""

_PIXELS = 2**16  # per batch: 64 images of 32x32
_PIXELS_ON_CUDA = 2**21  # 32 images of 256x256, as launches take the time; by the free memory, scores' bits would vary
_IMAGES_ON_CUDA = 64  # further ones would leave processes without any
_GRID = 16  # images in the sample grid

VARIANTS = 4
"""Number of predictions per image, for generators that take noise."""


def batch_size(pixels: int, device: str) -> int:
    """Images per batch of an evaluation. pixels: of an image; device: its type."""
    size = max(1, _PIXELS // pixels)
    return max(size, min(_IMAGES_ON_CUDA, _PIXELS_ON_CUDA // pixels)) if device == "cuda" else size


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
    """Scores of baselines and oracle, by name."""
    specs: ScoreSpecs
    networks: list[str]
    """Ids of the feature networks."""
    solver_steps: int | None = None
    """Of a flow, if they aren't those of training."""
    hints: int = 0
    """Random colour hints per image."""


@dataclass(frozen=True)
class Evaluator:
    """Evaluates predictions on the test split, which is divided among all ranks.

    target: uint8 [N, 3, H, W]; objects: masks, uint8 [N, H, W], where the source has them. All on the engine's device.
    """

    target: Tensor
    objects: Tensor | None
    noise_shape: tuple[int, ...]
    """Noise shape per prediction; (0,) for a deterministic generator."""
    metrics: Metrics
    color_space: ColorSpace
    engine: Engine
    hints: int = 0
    """Random colour hints per image that a network is given."""

    @property
    def specs(self) -> ScoreSpecs:
        """Specs of the metrics and references."""
        return score_specs([spec for each in self.metrics for spec in each.specs], REFERENCES)

    @property
    def features(self) -> list[FeatureScores]:
        """The metrics that compare features of all images."""
        return [each for each in self.metrics if isinstance(each, FeatureScores)]

    def references(self, median_ab: tuple[float, float]) -> dict[str, Scores]:
        """Evaluate baselines and oracle; scores by name. median_ab: of the training split."""

        def scores(reference: Reference) -> Scores:
            return self._scores(lambda part: reference.answer(self.target[part], median_ab).unsqueeze(1))

        return {each.name: scores(each) for each in REFERENCES}

    def scores(self, sample: Sample) -> Scores:
        """Evaluate a network."""
        return self._scores(lambda part: self._colorize(sample, part))

    def grid(self, sample: Sample) -> Image.Image:
        """Sample grid of test images: rows grey, prediction, target, each image_size pixels high."""
        # Spread evenly: the first images of a sorted folder are all of one class.
        count = min(_GRID, len(self.target))
        shown = [index * len(self.target) // count for index in range(count)]
        rgb = self.target[shown]
        parts = [shown[part] for part in in_batches(count, self._size)]
        answers = [self._colorize(sample, part, variants=1)[:, 0] for part in parts]
        rows = [luma(rgb).expand_as(rgb), torch.cat(answers), rgb]
        picture = torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)
        return Image.fromarray(picture.permute(1, 2, 0).cpu().numpy())

    def _scores(self, answer: Callable[[slice], Tensor]) -> Scores:
        """answer: maps a slice of the test split to V predictions per image, uint8 [B, V, 3, H, W]."""
        found = SetScores(self.metrics, len(self.target), self._size, self.engine)
        for part in self._parts():
            answers = answer(part)
            objects = None if self.objects is None else self.objects[part]
            variants = answers if answers.shape[1] > 1 else None
            found.update(part.start, EvalBatch(answers[:, 0], self.target[part], objects, variants))
        return found.scores(self._target_features, has_color(self.target).cpu())

    @property
    def _size(self) -> int:
        """Images per batch."""
        return batch_size(self.target.shape[-1] * self.target.shape[-2], self.target.device.type)

    def _parts(self) -> Iterator[slice]:
        """This process's batches of the test split."""
        for part in in_batches(len(self.target), self._size, self.engine.rank, self.engine.world_size):
            yield part
            self.engine.progress()

    @cached_property
    def _target_features(self) -> list[Tensor]:
        """Features of the targets, computed once."""
        found = SetFeatures(self.metrics, len(self.target), self.engine)
        for part in self._parts() if found.networks else ():
            found.update(part.start, self.target[part])
        return found.gather()

    @torch.no_grad()
    def _colorize(self, sample: Sample, part: slice | list[int], variants: int = VARIANTS) -> Tensor:
        """Predictions for a part of the test split: uint8 [B, V, 3, H, W]; V = 1 for a deterministic generator."""
        grey, target = self.color_space.split(self.target[part], self.engine.dtype)
        more = {"hints": self._hints(part, target)} if self.hints else {}
        color = sample(grey, self._noise(part, variants), **more)
        answers = len(color) // len(grey)
        picture = self.color_space.join(grey.repeat_interleave(answers, dim=0), color)
        return to_8_bits(picture).view(len(grey), answers, *picture.shape[1:])

    def _noise(self, part: slice | list[int], variants: int) -> Tensor | None:
        """Noise of a part of the test split, the same in every run: [B * variants, *noise_shape]."""
        if 0 in self.noise_shape:
            return None
        images = self._numbers(part)
        noise = [variant_noise(image, each, self.noise_shape) for image in images for each in range(variants)]
        return torch.from_numpy(np.stack(noise)).to(self.engine.dtype).to(self.engine.device)

    def _hints(self, part: slice | list[int], target: Tensor) -> Tensor:
        """Hints of a part of the test split, the same in every run. target: its colours, [B, C, H, W]."""
        points = np.stack([hint_positions(image, self.hints) for image in self._numbers(part)])
        where = squares(points, np.full(points.shape[:2], SIDE), *target.shape[2:])
        return hints_of(torch.from_numpy(where).to(target.device), target)

    def _numbers(self, part: slice | list[int]) -> Sequence[int]:
        """Numbers of a part's images in the test split."""
        return range(len(self.target))[part] if isinstance(part, slice) else part
