"""A timm model as the encoder of a U-Net."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor, nn

from colordist.errors import UserError, one_line
from colordist.models.blocks import normalisation
from colordist.models.pretrained import (
    Pretrained,
    create,
    create_pretrained,
    not_in_place,
    register_normalisation,
    state_digest,
)

KEY = "model.encoder"
"""Settings key of the encoder, for error messages."""


@dataclass(frozen=True)
class EncoderLevels:
    """Levels of an encoder, from fine to coarse."""

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    """Width of the image over that of the level: powers of 2, strictly increasing."""
    channels_last: bool
    """Whether features are [B, H, W, C]."""


@lru_cache
def encoder_levels(name: str) -> EncoderLevels:
    """The levels of a timm model. Raises UserError for a model that can't be an encoder."""
    with torch.device("meta"):
        model: Any = create(name, KEY, **_options(name)).eval()
    strides = tuple(model.feature_info.reduction())
    if any(stride & (stride - 1) for stride in strides) or list(strides) != sorted({*strides}):
        raise UserError(
            f"{KEY}: the strides of {name} are {', '.join(map(str, strides))}, but a U-Net needs increasing powers of "
            "2: try resnet18"
        )
    channels_last = "NHWC" in str(getattr(model, "output_fmt", ""))
    _check_sizes(name, model, strides, channels_last=channels_last)
    return EncoderLevels(tuple(model.feature_info.channels()), strides, channels_last)


def _check_sizes(name: str, model: nn.Module, strides: tuple[int, ...], *, channels_last: bool) -> None:
    """Raise UserError unless a model takes all multiples of its coarsest stride, and divides them by its strides.

    model: on the meta device.
    """
    for side in (2 * strides[-1], 3 * strides[-1]):
        try:
            with torch.no_grad():
                features = model(torch.empty(1, 3, side, side, device="meta"))
        except Exception as error:  # whatever a model raises
            raise UserError(
                f"{KEY}: {name} can't take images of {side} pixels ({one_line(error)}): try resnet18"
            ) from None
        sides = [each.shape[1 if channels_last else 2] for each in features]
        if sides != [side // stride for stride in strides]:
            raise UserError(
                f"{KEY}: the levels of {name} are {', '.join(map(str, sides))} pixels wide for images of {side}, which "
                "don't fit on each other: try resnet18"
            )


@lru_cache
def _options(name: str) -> dict[str, Any]:
    """Keyword arguments of ``timm.create_model`` for an encoder. Raises UserError for a model that can't be one."""
    # Swin takes images of any size only with the second one, which other models don't know.
    found: dict[str, Any] = {"features_only": True}
    adaptable: dict[str, Any] = {**found, "strict_img_size": False}
    try:
        with torch.device("meta"):
            try:
                create(name, KEY, **adaptable)
                return adaptable
            except TypeError:
                config: Any = create(name, KEY, **found).pretrained_cfg
    except UserError:
        raise
    except Exception as error:  # whatever a model raises that has no such features
        raise UserError(
            f"{KEY}: {name} gives no features at several resolutions ({one_line(error)}): try resnet18"
        ) from None
    if config["fixed_input_size"]:
        raise UserError(f"{KEY}: {name} takes images of {config['input_size'][-1]} pixels only: try resnet18")
    return found


class TimmEncoder(nn.Module):
    """A timm model that returns the features of all its levels, in eval mode also while it is trained.

    So BatchNorm keeps the statistics of pretraining: those of a process's few images would depend on the number of
    processes. Nor is there dropout or stochastic depth (Swin's default), whose random numbers would be no function of
    seed and step. Without pretrained weights BatchNorm is replaced by GroupNorm.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, *, pretrained: bool) -> None:
        """With random weights. pretrained: whether ``load_pretrained`` will follow. Raises UserError."""
        super().__init__()
        self.channels_last = encoder_levels(name).channels_last
        self.body = create(name, KEY, **_options(name))
        not_in_place(self.body)
        register_normalisation(self, cast(Any, self.body).pretrained_cfg)
        if not pretrained:
            _to_group_norm(self.body)
        self.train()

    def load_pretrained(self, model: Pretrained) -> str:
        """Load pretrained weights, which fetches them if need be. Returns their digest. Raises UserError."""
        self.body.load_state_dict(create_pretrained(model, **_options(model.name)).state_dict())
        return state_digest(self.body)

    def train(self, mode: bool = True) -> "TimmEncoder":
        """Stay in eval mode."""
        return super().train(False)

    def forward(self, image: Tensor) -> list[Tensor]:
        """image [B, 1, H, W], grey in [-1, 1]; or [B, 3, H, W] -> features [B, C, H / stride, W / stride] per level."""
        features = self.body(((image + 1) / 2 - self.mean) / self.std)
        return [each.permute(0, 3, 1, 2) for each in features] if self.channels_last else features


def _to_group_norm(module: nn.Module) -> None:
    """Replace BatchNorm by GroupNorm everywhere in a module."""
    from timm.layers.norm_act import BatchNormAct2d

    for name, child in module.named_children():
        if not isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
            _to_group_norm(child)
            continue
        norm = normalisation("group", child.num_features)
        activation = [child.drop, child.act] if isinstance(child, BatchNormAct2d) else []
        setattr(module, name, nn.Sequential(norm, *activation) if activation else norm)
