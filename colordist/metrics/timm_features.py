"""Metric ``features``: Fréchet and kernel distance in the features of a timm model.

Not FID and KID, which are defined by Inception (metric ``inception``): scores are named after their model.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from colordist.errors import UserError
from colordist.metrics.features import FeatureScores, distances_and_interval
from colordist.metrics.metric import EvalSet
from colordist.metrics.specs import MetricSpec
from colordist.models.feature_network import FeatureNetwork
from colordist.models.pretrained import PRETRAINED, Pretrained, architecture
from colordist.threads import single_thread

MODELS = ("tf_efficientnet_lite1", "resnet18")
"""The default, and another one where training used that."""
_KEYS = ("features.model", "features.weights")  # in error messages


def specs(model: str) -> tuple[MetricSpec, ...]:
    """Specs of the scores by a model: Fréchet distance, kernel distance, and the ends of the latter's interval."""
    label = f"Kernel x1000 ({model})"
    return (
        MetricSpec(f"frechet_{model}", f"Fréchet ({model})", "lower", digits=3),
        MetricSpec(f"kernel_{model}", label, "lower", digits=3),
        MetricSpec(f"kernel_{model}_low", f"{label}, 95 % from", "lower", digits=3, role="bound"),
        MetricSpec(f"kernel_{model}_high", f"{label}, 95 % to", "lower", digits=3, role="bound"),
    )


class TimmFeaturesMetric:
    """Fréchet distance, kernel distance and the latter's 95 % interval, by images scaled to the model's input size."""

    @dataclass(frozen=True, kw_only=True)
    class Settings:
        """Settings of the metric ``features``."""

        model: str = MODELS[0]
        """Model, as timm names it; the same for all runs to compare, and none that their training used."""
        weights: str = PRETRAINED
        """Weights of the model: `pretrained` (timm fetches them), or the path of a file."""
        sha256: str | None = None
        """SHA-256 that the file of weights must have. Default: not checked."""

        def __post_init__(self) -> None:
            for key in ("model", "weights"):
                if not getattr(self, key):
                    default = getattr(type(self), key)
                    raise UserError(f"evaluate.metrics: features.{key} is empty: leave it out, or try {default}")
            if self.sha256 is not None and self.weights == PRETRAINED:
                raise UserError("evaluate.metrics: features.sha256 is that of a file: name it as features.weights")

    def __init__(self, settings: Settings, eval_set: EvalSet) -> None:
        """Raises UserError for an unknown model, weights that can't be had, and a model that training used."""
        try:
            _require_independent(settings.model, eval_set.trained_with)
            network = FeatureNetwork(Pretrained(settings.model, settings.weights, settings.sha256, *_KEYS))
            digest = network.load_pretrained()
        except UserError as error:
            raise UserError(f"evaluate.metrics: {error}") from None
        network.to(eval_set.device)

        @torch.no_grad()
        def features(rgb: Tensor) -> Tensor:
            with single_thread():  # the last bit depends on their number
                found: Tensor = network(scaled(rgb, network.input_size))
            return found

        name = f"{settings.model} {digest[:8]}"
        self.metrics = [FeatureScores(name, specs(settings.model), network.width, features, distances_and_interval)]


def _require_independent(model: str, trained_with: frozenset[str]) -> None:
    """Raise UserError for a model whose weights training used: it would score what the network was made to please.

    Other weights of the same architecture (timm's tag, after the dot, or an old name) count as the same.
    """
    key = _KEYS[0]
    used = {architecture(each, key) for each in trained_with}
    if architecture(model, key) in used:
        other = next((each for each in MODELS if each not in used), "another one")
        raise UserError(
            f"features can't use {model}, as this network was trained with its weights and would be "
            f"flattered: try {{name: features, model: {other}}}"
        )


def scaled(rgb: Tensor, size: int) -> Tensor:
    """Scale images bicubically, with antialiasing: uint8 [B, 3, H, W] to float32 in [0, 1], [B, 3, size, size]."""
    images = rgb.float() / 255
    return F.interpolate(images, (size, size), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
