"""Models of timm with pretrained weights: fetched by timm, or read from a local file.

timm is imported when a model is built, not before.
"""

import difflib
import hashlib
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor, nn

from colordist.config import RunError, UserError
from colordist.files.download import download_timeout, quiet

log = logging.getLogger(__name__)

PRETRAINED, NONE = "pretrained", "none"
"""Values of a setting ``weights``; any other is the path of a file."""


@dataclass(frozen=True)
class Pretrained:
    """A timm model and its weights."""

    name: str
    """As timm names it, possibly with a tag: ``resnet18.a1_in1k``."""
    weights: str = PRETRAINED
    """`pretrained`: fetched by timm; or the path of a file in timm's format."""
    sha256: str | None = None
    """SHA-256 that the file must have, in hexadecimal."""
    key: str = "model.encoder"
    """Settings key of the name, for error messages."""
    weights_key: str = "model.weights"
    """Settings key of the weights."""


def _timm(key: str) -> ModuleType:
    """Import timm. Raises UserError where it is missing. key: the settings key that needs it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import timm as module
    except ImportError:
        raise UserError(f"{key} needs the package timm: pip install timm") from None
    return module


def check_name(name: str, key: str) -> None:
    """Raise UserError, with the nearest names, for a model that timm doesn't have."""
    known = _timm(key)
    if not known.is_model(name.partition(".")[0]):
        nearest = difflib.get_close_matches(name, known.list_models(), n=3, cutoff=0)
        raise UserError(f"{key}: timm has no model {name!r}: did you mean {', '.join(nearest[:-1])} or {nearest[-1]}?")


def create(name: str, key: str, *, state: dict[str, Tensor] | None = None, **options: Any) -> nn.Module:  # noqa: ANN401
    """Build a timm model with random weights, or with those of a whole model in timm's format.

    options: keyword arguments of ``timm.create_model``. Raises UserError for an unknown name, and RuntimeError for
    weights that don't fit.
    """
    check_name(name, key)
    if state is not None:
        options |= {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": state}}
    return cast(nn.Module, _timm(key).create_model(name, **options))


def fetch(model: Pretrained, **options: Any) -> nn.Module:  # noqa: ANN401
    """Build a timm model with its pretrained weights.

    options: keyword arguments of ``timm.create_model``, e.g. ``features_only``. Raises UserError where the weights are
    unavailable, damaged or of another model.
    """
    check_name(model.name, model.key)
    if model.weights == PRETRAINED:
        return _download(model, options)
    state = _read(model)
    try:
        with quiet("timm"):  # which warns about the classifier that a part of a model doesn't have
            # Once as a whole, because timm loads parts of a model without complaints about missing tensors.
            whole = create(model.name, model.key, state=state)
            return create(model.name, model.key, state=whole.state_dict(), **options)
    except (RuntimeError, KeyError) as error:
        raise UserError(
            f"{model.weights_key}: {model.weights} has no weights of {model.name} ({_reason(error)}): name the file of "
            "that model, as timm saves it"
        ) from None


def check_sha256(weights_key: str, weights: str, key: str, sha256: str | None) -> None:
    """Raise UserError for a SHA-256 without a file to check. weights_key, key: settings keys of the two values."""
    if sha256 is not None and weights in (PRETRAINED, NONE):
        raise UserError(f"{key} checks a file, but {weights_key} is {weights}: name the file, or leave {key} out")


def state_digest(module: nn.Module) -> str:
    """SHA-256 of a module's parameters and buffers, in hexadecimal."""
    found = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().numpy().data)
    return found.hexdigest()


def _download(model: Pretrained, options: dict[str, Any]) -> nn.Module:
    try:
        log.info("fetching the weights of %s, unless they are here already", model.name)
        with download_timeout(), quiet("timm"), quiet("huggingface_hub"):  # which announces each retry
            return cast(nn.Module, _timm(model.key).create_model(model.name, pretrained=True, **options))
    except Exception as error:  # of several HTTP clients, of the hub, of the file system
        raise UserError(
            f"{model.weights_key}: the weights of {model.name} can't be fetched ({_reason(error)}): fetch "
            f"{_address(model)} where there is a network, and name that file: {model.weights_key} FILE"
        ) from None


def _address(model: Pretrained) -> str:
    """Where the weights of a model are, for a person."""
    config = _timm(model.key).get_pretrained_cfg(model.name)
    if config is not None and config.hf_hub_id:
        return f"https://huggingface.co/{config.hf_hub_id}/resolve/main/model.safetensors"
    return (config is not None and config.url) or f"the weights of {model.name}"


def _read(model: Pretrained) -> dict[str, Tensor]:
    """Read a file of weights: safetensors, or a pickled state dict, of which only tensors are loaded."""
    path = Path(model.weights).expanduser()
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise UserError(
            f"{model.weights_key}: there is no file {path}: name one, or try {model.weights_key} {PRETRAINED}"
        ) from None
    except OSError as error:
        raise RunError(f"{model.weights_key}: {path} can't be read now ({error.strerror})") from None
    if model.sha256 is not None and digest != model.sha256.lower():
        raise UserError(
            f"{model.weights_key}: {path} has SHA-256 {digest}, not {model.sha256}: fetch it again, or correct the "
            "SHA-256"
        )
    try:
        return cast(dict[str, Tensor], _timm(model.key).models.load_state_dict(str(path), weights_only=True))
    except Exception as error:  # of safetensors, pickle, zipfile
        raise UserError(f"{model.weights_key}: {path} holds no weights ({_reason(error)}): name another file") from None


def _reason(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:120]


@dataclass(frozen=True)
class Layout:
    """The levels of a timm model as an encoder, from fine to coarse."""

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    """Width of the image over that of the level: powers of 2, strictly increasing."""
    channels_last: bool
    """Whether features are [B, H, W, C]."""


@lru_cache
def layout(name: str, key: str) -> Layout:
    """The levels of a timm model. Raises UserError for a model that can't be an encoder."""
    with torch.device("meta"):
        model: Any = create(name, key, **_options(name, key))
    strides = tuple(model.feature_info.reduction())
    if any(stride & (stride - 1) for stride in strides) or list(strides) != sorted({*strides}):
        raise UserError(
            f"{key}: the strides of {name} are {', '.join(map(str, strides))}, but a U-Net needs increasing powers of "
            "2: try resnet18"
        )
    return Layout(tuple(model.feature_info.channels()), strides, "NHWC" in str(getattr(model, "output_fmt", "")))


def encoder(model: Pretrained, *, load: bool) -> nn.Module:
    """Build a timm model that returns the features of all its levels, for images of any size.

    load: whether to load its weights; else they are random. Raises UserError for a model that has no such features.
    """
    options = _options(model.name, model.key)
    return fetch(model, **options) if load else create(model.name, model.key, **options)


@lru_cache
def _options(name: str, key: str) -> dict[str, Any]:
    """Keyword arguments of ``timm.create_model`` for an encoder. Raises UserError for a model that can't be one."""
    # Swin takes images of any size only with the second one, which other models don't know.
    found: dict[str, Any] = {"features_only": True}
    adaptable: dict[str, Any] = {**found, "strict_img_size": False}
    try:
        with torch.device("meta"):
            try:
                create(name, key, **adaptable)
                return adaptable
            except TypeError:
                config: Any = create(name, key, **found).pretrained_cfg
    except UserError:
        raise
    except Exception as error:  # whatever a model raises that has no such features
        raise UserError(
            f"{key}: {name} gives no features at several resolutions ({_reason(error)}): try resnet18"
        ) from None
    if config["fixed_input_size"]:
        raise UserError(f"{key}: {name} takes images of {config['input_size'][-1]} pixels only: try resnet18")
    return found


class FeatureNetwork(nn.Module):
    """A frozen timm model in eval mode, for features of images: with random weights until ``load_pretrained``."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: Pretrained, layers: Sequence[str] = ()) -> None:
        """layers: names of submodules whose outputs ``forward`` returns. Raises UserError for an unknown name."""
        super().__init__()
        self.model = model
        whole: Any = create(model.name, model.key, num_classes=0)
        self.width = int(getattr(whole, "head_hidden_size", whole.num_features))
        """Features per image."""
        self.input_size = int(whole.pretrained_cfg["input_size"][-1])
        """Width and height in pixels of the images that the model was trained on."""
        register_normalisation(self, whole.pretrained_cfg)
        self.body = _up_to(whole.eval(), layers, model.key) if layers else whole
        self.train(False).requires_grad_(False)

    def load_pretrained(self) -> str:
        """Load the weights, which fetches them if need be. Returns their digest, as ``state_digest``."""
        own = self.body.state_dict()
        found = fetch(self.model, num_classes=0).state_dict()
        # Not strictly: a traced part of a model has constants as buffers.
        self.body.load_state_dict({name: found[name] for name in own if name in found}, strict=False)
        return state_digest(self.body)

    def train(self, mode: bool = True) -> "FeatureNetwork":
        """Stay in eval mode."""
        return super().train(False)

    def forward(self, rgb: Tensor) -> Any:  # noqa: ANN401
        """sRGB [B, 3, H, W] in [0, 1] -> pooled features [B, width], or a list of the layers' outputs."""
        features = self.body((rgb - self.mean) / self.std)
        return list(features.values()) if isinstance(features, dict) else features


def _up_to(model: nn.Module, layers: Sequence[str], key: str) -> nn.Module:
    """The part of a model that computes some layers."""
    from timm.models import create_feature_extractor

    known = [name for name, _ in model.named_modules() if name]
    for layer in layers:
        if layer not in known:
            nearest = difflib.get_close_matches(layer, known, n=3, cutoff=0)
            raise UserError(f"{key}: the model has no layer {layer}: did you mean {' or '.join(nearest)}?")
    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = False  # type: ignore[assignment]  # an activation would overwrite the output of the layer before it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about train mode, which it is never in
        return cast(nn.Module, create_feature_extractor(model, list(layers)))


def register_normalisation(module: nn.Module, config: dict[str, Any]) -> None:
    """Register the mean and standard deviation of a timm model's input as buffers: [1, 3, 1, 1], for sRGB in [0, 1]."""
    for name in ("mean", "std"):
        module.register_buffer(name, torch.tensor(config[name], dtype=torch.get_default_dtype()).view(1, 3, 1, 1))
