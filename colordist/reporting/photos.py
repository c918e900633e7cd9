"""Photographs with the answers of programs: those furthest from the photograph, in the middle, and nearest to it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray

from colordist.color import luma
from colordist.data.decode import decode
from colordist.evaluation.pairs import Pairs
from colordist.evaluation.referee import Judgement
from colordist.reporting.gallery import data_uri

EACH = 4
"""Photographs from either end and from the middle."""

Picture = NDArray[np.uint8]
"""[H, W, 3], RGB."""


@dataclass(frozen=True)
class Tile:
    """An image in the page."""

    label: str
    uri: str
    width: int
    height: int
    score: float | None
    """By the primary metric; None for the grey input and the photograph."""


@dataclass(frozen=True)
class PhotoRow:
    """A photograph, and the answers to it."""

    name: str
    place: str
    """Where it stands among all photographs."""
    tiles: list[Tile]


def photo_rows(judgement: Judgement, pairs: Pairs) -> list[PhotoRow]:
    """The photographs from both ends and the middle of the mean score over all programs, from worst to best."""
    metric = judgement.specs.primary
    costs = [fmean(map(metric.cost, scores)) for scores in zip(*judgement.per_image.values(), strict=True)]
    order = sorted(range(len(costs)), key=lambda place: -costs[place])
    rows = []
    for rank in chosen(len(order)):
        place = order[rank]
        name = judgement.images[place]
        index = pairs.names.index(name)
        target = _picture(pairs.photographs[index])
        answers = [
            (program, _picture(files[index]), judgement.per_image[program][place])
            for program, files in pairs.answers.items()
        ]
        rows.append(photo_row(name, f"{rank + 1} of {len(order)}", _grey(target), answers, target))
    return rows


def chosen(count: int) -> list[int]:
    """Ranks that are shown: EACH from the start, the middle and the end; all of few."""
    if count <= 3 * EACH:
        return [*range(count)]
    middle = (count - EACH) // 2
    return [*range(EACH), *range(middle, middle + EACH), *range(count - EACH, count)]


def photo_row(
    name: str, place: str, grey: Picture, answers: Sequence[tuple[str, Picture, float]], target: Picture
) -> PhotoRow:
    """A row of images. answers: program, answer and score."""
    shown = [("grey", grey, None), *answers, ("photograph", target, None)]
    height, width = target.shape[:2]
    return PhotoRow(name, place, [Tile(label, data_uri(each), width, height, score) for label, each, score in shown])


def _grey(rgb: Picture) -> Picture:
    return luma(torch.from_numpy(rgb).permute(2, 0, 1)).squeeze(0).unsqueeze(-1).expand(rgb.shape).numpy()


def _picture(path: Path) -> Picture:
    return np.array(decode(path))
