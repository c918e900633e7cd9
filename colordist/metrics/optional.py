"""What is scored besides, where the config asks for it: what other networks see in the answers."""

from pathlib import Path

import torch

from colordist.config import EvaluateConfig, UserError
from colordist.data.source import Labels
from colordist.metrics import classifier_file
from colordist.metrics.features import FeatureScores
from colordist.metrics.metric import Metric


def optional_features(
    config: EvaluateConfig, labels: Labels | None, image_size: int, device: torch.device
) -> list[FeatureScores]:
    """The scores of whole sets. labels: the source's. Raises UserError for a network that can't be had."""
    found = []
    if getattr(config, "classifier", None) is not None:
        from colordist.metrics.classifier import classifier_scores

        folder = Path(config.classifier).expanduser()
        classifier, about, digest = classifier_file.read(folder)
        if about.image_size != image_size:
            raise UserError(
                f"evaluate.classifier {folder} knows images of {about.image_size} pixels, but data.image_size is "
                f"{image_size}: train another with python -m colordist.classifier --data.image_size {image_size}"
            )
        found.append(classifier_scores(classifier.to(device), about.classes, labels, f"classifier {digest[:8]}"))
    if "inception" in getattr(config, "networks", []):
        from colordist.metrics.inception import inception_scores

        found.append(inception_scores(device))
    return found


def optional_metrics(config: EvaluateConfig, device: torch.device) -> list[Metric]:
    """The scores that are means over images. Raises UserError for a network that can't be had."""
    if "lpips" not in getattr(config, "networks", []):
        return []
    from colordist.metrics.lpips import lpips

    return [lpips(device)]
