"""Feature loss ("perceptual loss"): distance between features that a frozen pretrained network has of two images."""

import dataclasses
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from colordist.color import ColorSpace
from colordist.config import Config, TaskSettings
from colordist.data.batch import Batch
from colordist.errors import UserError, one_line
from colordist.models.feature_network import FeatureNetwork
from colordist.models.pretrained import Pretrained, check_sha256, create
from colordist.models.seeding import seeded
from colordist.ranges import at_least
from colordist.tasks.base import Calls

_NAME = "features"
_COARSEST = 8  # stride in pixels of the coarsest default layer
_SMALLEST_SCALE = 1e-3  # bounds the gradient where a layer is silent


@dataclass(frozen=True, kw_only=True)
class FeatureLossSettings(TaskSettings):
    """Settings of a task with a feature loss."""

    operational: ClassVar[frozenset[str]] = frozenset({"feature_sha256"})
    weights_keys: ClassVar[frozenset[str]] = frozenset({"feature_weights"})

    feature_weight: float = 0.0
    """Weight of the feature (perceptual) loss (arXiv 1603.08155); 0: off."""
    feature_model: str = "vgg16"
    """Network of the feature loss: a model of timm."""
    feature_layers: list[str] = dataclasses.field(default_factory=list)
    """Its layers. Default: the last of each resolution down to an eighth (of vgg16: relu1_2, 2_2, 3_3 and 4_3)."""
    feature_weights: str = "pretrained"
    """Its weights: `pretrained` (timm fetches them), or the path of a file."""
    feature_sha256: str | None = None
    """SHA-256 that the file of weights must have. Default: not checked."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("task.feature_weight", self.feature_weight, 0)
        if self.feature_weights in ("", "none"):
            raise UserError(
                f"task.feature_weights is {self.feature_weights!r}, but random features mean nothing: try "
                "task.feature_weights pretrained, or task.feature_weight 0"
            )
        check_sha256("task.feature_weights", self.feature_weights, "task.feature_sha256", self.feature_sha256)

    def check(self, config: Config) -> None:
        """Raise UserError for an unknown network or layer, or images that it can't take."""
        super().check(config)
        if self.feature_weight > 0:
            _check_network(self.feature_model, tuple(self.feature_layers), config.data.image_size)

    @property
    def pretrained(self) -> tuple[str, ...]:
        """Names of the timm models whose weights training uses."""
        return (self.feature_model,) if self.feature_weight > 0 else ()


def feature_networks(settings: FeatureLossSettings) -> dict[str, nn.Module]:
    """The network of the feature loss, for ``Task.frozen``; none where the loss is off."""
    if settings.feature_weight == 0:
        return {}
    key = "task.feature_model"
    model = Pretrained(
        settings.feature_model, settings.feature_weights, settings.feature_sha256, key, "task.feature_weights"
    )
    layers = settings.feature_layers or _default_layers(model.name, key)
    return {_NAME: seeded(0, lambda: FeatureNetwork(model, layers))}  # timm fills it with random weights first


def feature_loss(calls: Calls, space: ColorSpace, batch: Batch, color: Tensor) -> Tensor:
    """Feature loss between colours [B, C, H, W] and a batch's targets: a scalar.

    A colour outside of the sRGB gamut is clipped, and then gets no gradient from here in the clipped channels: other
    losses, which see colours unclipped, pull it back.
    """
    network = cast(Any, calls[_NAME])
    with torch.no_grad():
        targets = network(space.join(batch.target_grey, batch.target))
    found = network(space.join(batch.grey, color))
    return torch.stack([relative_error(*pair) for pair in zip(found, targets, strict=True)]).mean()


def relative_error(found: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of two tensors over the target's mean absolute value, averaged over the batch: a scalar.

    Layers differ in scale by orders of magnitude; relative errors are of comparable size in all of them. The scale is
    each image's own: that of a batch would depend on the number of processes.
    """
    error, scale = (each.abs().flatten(1).mean(1) for each in (found - target, target))
    return (error / scale.clamp(min=_SMALLEST_SCALE)).mean()


def _default_layers(name: str, key: str) -> list[str]:
    """The last layer of each resolution down to an eighth of the image's."""
    with torch.device("meta"):
        model: Any = create(name, key, num_classes=0)
    layers = [each["module"] for each in getattr(model, "feature_info", []) if each["reduction"] <= _COARSEST]
    if not layers:
        raise UserError(f"task.feature_layers is empty, but timm names no fine layers of {name}: name some")
    return layers


@lru_cache
def _check_network(name: str, layers: tuple[str, ...], size: int) -> None:
    """Raise UserError for an unknown network or layer, or images that it can't take."""
    settings = FeatureLossSettings(feature_weight=1, feature_model=name, feature_layers=[*layers])
    try:
        with torch.device("meta"):
            found = feature_networks(settings)[_NAME](torch.empty(1, 3, size, size))
    except UserError:
        raise
    except Exception as error:  # whatever a model raises
        raise UserError(
            f"task.feature_model: {name} can't take images of {size} pixels ({one_line(error)}): try "
            "task.feature_model vgg16, with its default layers"
        ) from None
    if not all(isinstance(each, Tensor) and each.is_floating_point() for each in found):
        raise UserError("task.feature_layers has a layer that returns no tensor: name others")
