"""Scores of files: the answers of any programs beside baselines and oracle, each image at its own size."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from colordist.config import EvaluateConfig
from colordist.data.loader import in_batches
from colordist.engine.consistency import check_same
from colordist.engine.runtime import Engine
from colordist.evaluation.file_check import check_files, read_again
from colordist.evaluation.pairs import Pairs, find_pairs
from colordist.evaluation.set_scores import Metrics, Scores, SetFeatures, SetScores
from colordist.metrics.baselines import REFERENCES, Reference
from colordist.metrics.metric import EvalBatch, EvalSet
from colordist.metrics.optional import build_metrics
from colordist.metrics.specs import ScoreSpecs, score_specs
from colordist.metrics.unsigned_colorfulness import CF, DELTA_CF

_ROWS = 1024
"""Most rows of sums per set: one per photograph would fill the memory where there are many."""

_GREY, _CONSTANT, _ORACLE, _TARGET = REFERENCES
FILE_REFERENCES: tuple[Reference, ...] = (
    _GREY,
    dataclasses.replace(_CONSTANT, name="constant_of_truth", label="photographs' median a,b (baseline)"),
    _ORACLE,
    dataclasses.replace(_TARGET, label="photographs (target)"),
)
"""References for files. There are no training images, so the constant colour is the median of the photographs
themselves, which no program can know."""


@dataclass(frozen=True)
class Judgement:
    """Scores of the answers of programs."""

    photographs: str
    """Folder of the photographs."""
    answers: dict[str, str]
    """Folders of the answers, by program."""
    median_ab: tuple[float, float]
    """Of the photographs."""
    scores: dict[str, Scores]
    """By program."""
    references: dict[str, Scores]
    """Scores of baselines and oracle, by name."""
    specs: ScoreSpecs
    networks: list[str]
    """Ids of the feature networks."""
    images: list[str]
    """Names of the photographs with any colour: the others are not scored."""
    left_out: list[str]
    """Names of the photographs without any colour."""
    per_image: dict[str, list[float]]
    """Scores of each of ``images`` by the primary metric, by program."""


def judge(photographs: Path, folders: Sequence[Path], config: EvaluateConfig) -> tuple[Judgement, Pairs] | None:
    """Score the answers in some folders to the photographs in another one, on all ranks. None except on rank 0.

    Raises UserError for answers that are missing, can't be read or have another size than their photograph.
    """
    engine = Engine("fp32")
    pairs: Pairs = engine.from_main(engine.on_all_ranks(lambda: find_pairs(photographs, folders)))
    median, colored = check_files(pairs, _mine(len(pairs.names), engine, "reading"), engine)
    eval_set = EvalSet(image_size=None, device=engine.device)
    metrics = [*engine.fetch(lambda: build_metrics(config.metrics, eval_set), "loading metrics"), CF, DELTA_CF]
    networks = [each.network for each in SetFeatures(metrics, 0, engine).networks]
    check_same(engine, "scores by other feature networks", networks, "give all machines the same")
    references, scores, per_image = _score(pairs, metrics, median, torch.tensor(colored), engine)
    engine.close()
    if not engine.is_main:
        return None
    judgement = Judgement(
        str(photographs),
        {name: str(folder) for name, folder in pairs.folders.items()},
        median,
        scores,
        references,
        score_specs([spec for each in metrics for spec in each.specs], FILE_REFERENCES),
        networks,
        [name for name, kept in zip(pairs.names, colored, strict=True) if kept],
        [name for name, kept in zip(pairs.names, colored, strict=True) if not kept],
        per_image,
    )
    return judgement, pairs


def _score(
    pairs: Pairs, metrics: Metrics, median_ab: tuple[float, float], colored: Tensor, engine: Engine
) -> tuple[dict[str, Scores], dict[str, Scores], dict[str, list[float]]]:
    """Scores of references, by name, and of programs; those of each image with colour by the primary metric.

    colored: bool [N].
    """
    images = len(pairs.names)
    references = {each.name: SetScores(metrics, images, _row(images), engine) for each in FILE_REFERENCES}
    programs = {name: SetScores(metrics, images, _row(images), engine) for name in pairs.answers}
    targets = SetFeatures(metrics, images, engine)
    primary = score_specs([spec for each in metrics for spec in each.specs], ()).primary.name
    per_image = {name: torch.zeros(images, dtype=torch.float64) for name in programs}
    for index in _mine(images, engine, "scoring"):
        target = read_again(pairs.photographs[index], engine.device)
        targets.update(index, target)
        for reference in FILE_REFERENCES:
            references[reference.name].update(index, EvalBatch(reference.answer(target, median_ab), target))
        for name, program in programs.items():
            found = program.update(index, EvalBatch(read_again(pairs.answers[name][index], engine.device), target))
            per_image[name][index] = found[primary]
        engine.progress()
    features = targets.gather()
    return (
        {name: each.scores(features, colored) for name, each in references.items()},
        {name: each.scores(features, colored) for name, each in programs.items()},
        {name: engine.sum(scores)[colored].tolist() for name, scores in per_image.items()},
    )


def _row(images: int) -> int:
    """Images per row of sums, and per batch: a function of their number alone."""
    return -(-images // _ROWS)


def _mine(images: int, engine: Engine, work: str) -> Iterator[int]:
    """This rank's photographs, with a progress bar on rank 0."""
    parts = in_batches(images, _row(images), engine.rank, engine.world_size)
    mine = [index for part in parts for index in range(part.start, part.stop)]
    return iter(tqdm(mine, desc=work, unit="photo", leave=False, disable=None if engine.is_main else True))
