"""Photographs with the answers of programs: those furthest from the photograph, in the middle, and nearest to it."""

from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from colordist.color import luma
from colordist.evaluation.file_check import read_again
from colordist.evaluation.pairs import Pairs
from colordist.evaluation.referee import Judgement
from colordist.reporting.viewer import Example

EACH = 4
"""Photographs from either end and from the middle."""


def examples(judgement: Judgement, pairs: Pairs) -> list[Example]:
    """The photographs from both ends and the middle of the mean score over all programs, from worst to best."""
    metric = judgement.specs.primary
    costs = [fmean(map(metric.cost, scores)) for scores in zip(*judgement.per_image.values(), strict=True)]
    order = sorted(range(len(costs)), key=lambda image: -costs[image])
    found = []
    for rank in chosen(len(order)):
        image = order[rank]
        name = judgement.images[image]
        index = pairs.names.index(name)
        target = _read(pairs.photographs[index])
        answers = {program: _read(files[index]) for program, files in pairs.answers.items()}
        scores = ", ".join(f"{program} {metric.format(each[image])}" for program, each in judgement.per_image.items())
        shown = {"grey (input)": luma(target).expand_as(target), **answers, "photograph (target)": target}
        pictures = {label: pixels[0].permute(1, 2, 0).numpy() for label, pixels in shown.items()}
        found.append(Example(name, pictures, f"{rank + 1} of {len(order)}; {metric.label}: {scores}"))
    return found


def chosen(count: int) -> list[int]:
    """Ranks that are shown: EACH from the start, the middle and the end; all of few."""
    if count <= 3 * EACH:
        return [*range(count)]
    middle = (count - EACH) // 2
    return [*range(EACH), *range(middle, middle + EACH), *range(count - EACH, count)]


def _read(path: Path) -> Tensor:
    return read_again(path, torch.device("cpu"))
