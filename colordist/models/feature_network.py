"""A frozen timm model, for features of images: of the feature loss, and of metrics."""

import difflib
import warnings
from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor, nn

from colordist.errors import UserError
from colordist.models.pretrained import (
    Pretrained,
    create,
    create_pretrained,
    not_in_place,
    register_normalisation,
    state_digest,
)


class FeatureNetwork(nn.Module):
    """A frozen timm model in eval mode, for features of images: with random weights until ``load_pretrained``."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: Pretrained, layers: Sequence[str] = (), layers_key: str = "task.feature_layers") -> None:
        """layers: names of submodules whose outputs ``forward`` returns. layers_key: their settings key.

        Raises UserError for an unknown name.
        """
        super().__init__()
        self.model = model
        whole: Any = create(model.name, model.key, num_classes=0)
        self.width = int(getattr(whole, "head_hidden_size", whole.num_features))
        """Features per image."""
        self.input_size = int(whole.pretrained_cfg["input_size"][-1])
        """Width and height in pixels of the images that the model was trained on."""
        register_normalisation(self, whole.pretrained_cfg)
        self.body = whole.eval()
        if layers:
            _check_layers(whole, model.name, layers, layers_key)
            self.body = _up_to(whole, layers)
        self.train(False).requires_grad_(False)

    def load_pretrained(self) -> str:
        """Load the weights, which fetches them if need be. Returns their digest, as ``state_digest``."""
        found = create_pretrained(self.model, num_classes=0).state_dict()
        own, constants = self.body.state_dict(), dict(self.body.named_buffers())
        # A traced part of a model has its constants as further buffers.
        state = {name: found[name] for name in own if name in found or name not in constants}
        self.body.load_state_dict(own | state)
        return state_digest(self.body)

    def train(self, mode: bool = True) -> "FeatureNetwork":
        """Stay in eval mode."""
        return super().train(False)

    def forward(self, rgb: Tensor) -> Any:  # noqa: ANN401
        """sRGB [B, 3, H, W] in [0, 1] -> pooled features [B, width], or a list of the layers' outputs."""
        features = self.body((rgb - self.mean) / self.std)
        return list(features.values()) if isinstance(features, dict) else features


def _check_layers(model: nn.Module, name: str, layers: Sequence[str], key: str) -> None:
    """Raise UserError, with the nearest names, for a layer that a model doesn't have."""
    known = [each for each, _ in model.named_modules() if each]
    for layer in layers:
        if layer not in known:
            nearest = ", ".join(difflib.get_close_matches(layer, known, n=3, cutoff=0))
            raise UserError(f"{key}: {name} has no layer {layer}: try one like {nearest}, or leave {key} out")


def _up_to(model: nn.Module, layers: Sequence[str]) -> nn.Module:
    """The part of a model that computes some layers."""
    from timm.models import create_feature_extractor

    not_in_place(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about train mode, which it is never in
        return cast(nn.Module, create_feature_extractor(model, list(layers)))
