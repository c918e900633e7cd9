"""Construction of the evaluator from settings; evaluation of a snapshot."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from colordist.config import DataConfig, EvaluateConfig
from colordist.data.loader import load, sample
from colordist.data.source import MaskedSplit, Source
from colordist.engine.consistency import check_same
from colordist.engine.runtime import Engine
from colordist.errors import UserError
from colordist.evaluation.build_source import build_source
from colordist.evaluation.evaluator import Evaluation, Evaluator
from colordist.metrics.baselines import median_ab
from colordist.metrics.metric import EvalSet
from colordist.metrics.optional import build_metrics
from colordist.run import snapshot
from colordist.tasks.base import Task


def build_evaluator(task: Task, source: Source, config: EvaluateConfig, engine: Engine) -> Evaluator:
    """Build the evaluator of a task's networks on the test split."""
    objects = None
    if isinstance(source.test, MaskedSplit):
        masks = np.stack([source.test.objects(index) for index in range(len(source.test))])
        objects = torch.from_numpy(masks).to(engine.device)
    with engine.stall_exempt("loading images"):
        target = load(source.test, engine.device, "test images", quiet=not engine.is_main)
    if torch.equal(target[:, 0], target[:, 1]) and torch.equal(target[:, 1], target[:, 2]):
        raise UserError(f"no test image of data.source {source.name} has any colour, so there is nothing to score")
    metrics = engine.fetch(lambda: build_metrics(config.metrics, eval_set(task, source, target)), "loading metrics")
    noise_shape = task.noise_shape(target.shape[-1])
    evaluator = Evaluator(target, objects, noise_shape, metrics, task.color_space, engine)
    networks = [each.network for each in evaluator.features]
    check_same(engine, "scores by other feature networks", networks, "give all machines the same")
    return evaluator


def eval_set(task: Task, source: Source, target: Tensor) -> EvalSet:
    """Properties of a source's test split and of the task, for metrics. target: the images, uint8 [N, 3, H, W]."""
    return EvalSet(
        image_size=target.shape[-1],
        device=target.device,
        ambiguous_colors=source.ambiguous_colors,
        trained_with=frozenset((*task.settings.pretrained, *task.model.pretrained)),
    )


def evaluate_snapshot(
    model: Path, data: DataConfig, config: EvaluateConfig, solver_steps: int | None = None, hints: int = 0
) -> Evaluation | None:
    """Evaluate a snapshot on all ranks. Returns None except on rank 0.

    solver_steps: of a flow; default: as trained. hints: random ones of the target's colours, per image.
    """
    trained = snapshot.read(snapshot.find(model), solver_steps)
    if hints and not trained.task.settings.takes_hints:
        raise UserError(f"--hints is {hints}, but this network takes none: train one with task.hints true")
    multiple = trained.task.model.size_multiple
    if data.image_size % multiple:
        fitting = data.image_size // multiple * multiple
        raise UserError(
            f"data.image_size is {data.image_size}, but this network needs a multiple of {multiple}: try "
            f"{fitting or 2 * multiple}"
        )
    engine = Engine("fp32")
    check_same(engine, "has another snapshot", trained.about.get("sha256"), "give all machines the same")
    source = build_source(data, engine)
    evaluator = replace(build_evaluator(trained.task, source, config, engine), hints=hints)
    with engine.stall_exempt("loading images"):
        median = median_ab(sample(source.train, engine.device))
    references = evaluator.references(median)
    trained.networks.to(engine.device, engine.dtype)
    scores = evaluator.scores(trained.sample)
    engine.close()
    images = len(source.test)
    networks = [each.network for each in evaluator.features]
    found = Evaluation(
        str(model),
        trained.step,
        asdict(data),
        images,
        scores,
        references,
        evaluator.specs,
        networks,
        solver_steps,
        hints,
    )
    return found if engine.is_main else None
