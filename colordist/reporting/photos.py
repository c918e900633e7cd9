"""Photographs with the answers of programs: those furthest from the photograph, in the middle, and nearest to it."""

from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray

from colordist.color import luma
from colordist.data.decode import decode
from colordist.evaluation.pairs import Pairs
from colordist.evaluation.referee import Judgement
from colordist.reporting.viewer import Example

EACH = 4
"""Photographs from either end and from the middle."""

Picture = NDArray[np.uint8]
"""[H, W, 3], RGB."""


def examples(judgement: Judgement, pairs: Pairs) -> list[Example]:
    """The photographs from both ends and the middle of the mean score over all programs, from worst to best."""
    metric = judgement.specs.primary
    costs = [fmean(map(metric.cost, scores)) for scores in zip(*judgement.per_image.values(), strict=True)]
    order = sorted(range(len(costs)), key=lambda place: -costs[place])
    found = []
    for rank in chosen(len(order)):
        place = order[rank]
        name = judgement.images[place]
        index = pairs.names.index(name)
        target = _picture(pairs.photographs[index])
        answers = {program: _picture(files[index]) for program, files in pairs.answers.items()}
        scores = ", ".join(f"{program} {metric.format(each[place])}" for program, each in judgement.per_image.items())
        pictures = {"grey (input)": _grey(target), **answers, "photograph (target)": target}
        found.append(Example(name, pictures, f"{rank + 1} of {len(order)}; {metric.label}: {scores}"))
    return found


def chosen(count: int) -> list[int]:
    """Ranks that are shown: EACH from the start, the middle and the end; all of few."""
    if count <= 3 * EACH:
        return [*range(count)]
    middle = (count - EACH) // 2
    return [*range(EACH), *range(middle, middle + EACH), *range(count - EACH, count)]


def _grey(rgb: Picture) -> Picture:
    return luma(torch.from_numpy(rgb).permute(2, 0, 1)).squeeze(0).unsqueeze(-1).expand(rgb.shape).numpy()


def _picture(path: Path) -> Picture:
    return np.array(decode(path))
