"""Construction and training of a classifier from settings."""

from pathlib import Path

import torch

from colordist.config import DataConfig, UserError
from colordist.data.loader import image_digest, load
from colordist.data.source import Labels, Source
from colordist.engine.runtime import Engine
from colordist.evaluation.build_source import build_source
from colordist.evaluation.classifier_training import accuracy, train
from colordist.metrics import classifier_file
from colordist.metrics.baselines import grey
from colordist.metrics.classifier_file import About
from colordist.models.classifier import Classifier
from colordist.models.seeding import seeded


def train_classifier(data: DataConfig, folder: Path, epochs: int, seed: int, precision: str) -> About:
    """Train a classifier on labelled images and write it. Returns its description.

    Raises UserError for several processes, images without labels, or a folder that holds something else.
    """
    classifier_file.require_own(folder)
    engine = Engine(precision)
    if engine.world_size > 1:
        raise UserError(f"a classifier is trained by one process, not {engine.world_size}: start without a launcher")
    source = build_source(data, engine)
    labels = require_classes(source)
    images, target = (load(part, engine.device) for part in (source.train, source.test))
    named, tested = (torch.from_numpy(part).to(engine.device) for part in (labels.train, labels.test))
    classifier = seeded(seed, lambda: Classifier(len(labels.classes))).to(engine.device)
    classifier.to(memory_format=torch.channels_last)
    train(classifier, images, named, epochs=epochs, seed=seed, bf16=engine.precision == "bf16")
    about = About(
        classes=labels.classes,
        image_size=data.image_size,
        images=f"{image_digest(images)} {image_digest(target)}",
        epochs=epochs,
        seed=seed,
        accuracy=accuracy(classifier, target, tested),
        accuracy_on_grey=accuracy(classifier, grey(target), tested),
    )
    try:
        classifier_file.write(folder, classifier, about)
    except OSError as error:
        raise UserError(f"-o {folder} can't be written ({error.strerror}): name another folder") from None
    engine.close()
    return about


def require_classes(source: Source) -> Labels:
    """Get a source's labels. Raises UserError for a source without labels, or with a single class."""
    if source.labels is None or len(source.labels.classes) < 2:
        raise UserError(
            f"data.source {source.name} has no labels of two classes or more: use cifar10, or a folder with a "
            "subfolder for each class"
        )
    return source.labels
