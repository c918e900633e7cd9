"""Models of timm with pretrained weights: fetched by timm, or read from a local file.

timm is imported when a model is built, not before.
"""

import difflib
import hashlib
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from colordist.errors import RunError, UserError, one_line
from colordist.files.download import download_timeout, quiet
from colordist.files.opening import NotRegular, open_regular
from colordist.files.paths import expanded

log = logging.getLogger(__name__)

PRETRAINED, NONE = "pretrained", "none"
"""Values of a setting ``weights``; any other is the path of a file."""
_WAIT = 3.0  # seconds before the hub is tried once more


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
    """Raise UserError, with the nearest names, for a model or tag that timm doesn't have."""
    known = _timm(key)
    architecture, _, tag = name.partition(".")
    if tag and known.is_model(architecture):
        tags = [each.partition(".")[2] for each in known.list_pretrained(f"{architecture}.*")]
        if tag not in tags:
            others = f": leave {tag} out" + (f", or name one of {', '.join(tags)}" if tags else "")
            raise UserError(f"{key}: timm has no weights {tag!r} of {architecture}{others}")
    if not known.is_model(architecture):
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


def architecture(name: str, key: str) -> str:
    """The architecture of a timm model, without the tag."""
    return str(_config(name, key)["architecture"])


def _config(name: str, key: str) -> dict[str, Any]:
    """What timm says of a model and its weights. Old names, as `gluon_resnet18_v1b`, mean a tag of another one."""
    with torch.device("meta"), quiet("timm"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about old names
        return dict(cast(Any, create(name, key)).pretrained_cfg)


def create_pretrained(model: Pretrained, **options: Any) -> nn.Module:  # noqa: ANN401
    """Build a timm model with its pretrained weights, without a classifier.

    options: ``features_only=True`` or ``num_classes=0``, and other keyword arguments of ``timm.create_model``. Raises
    UserError where the weights are unavailable, damaged or of another model.
    """
    check_name(model.name, model.key)
    if model.weights == PRETRAINED:
        return _download(model, options)
    state = _read(model)
    try:
        with quiet("timm"):  # which warns about the classifier that a part of a model doesn't have
            # Once as a whole, because timm loads parts of a model without complaints about missing tensors.
            return create(model.name, model.key, state=_whole(model, state), **options)
    except (RuntimeError, KeyError) as error:
        raise UserError(
            f"{model.weights_key}: {model.weights} has no weights of {model.name} ({one_line(error)}): name the "
            "file of that model, as timm saves it"
        ) from None


def _whole(model: Pretrained, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a whole model without its classifier, which may be missing, or one of other classes.

    Raises RuntimeError or KeyError for tensors of another model.
    """
    whole: Any = create(model.name, model.key, num_classes=0)
    given = whole.pretrained_cfg.get("classifier") or ()
    classifiers = tuple(f"{name}." for name in ((given,) if isinstance(given, str) else given))
    try:
        whole.load_state_dict({name: each for name, each in state.items() if not name.startswith(classifiers)})
    except RuntimeError:  # not in timm's format of today: it converts some others
        whole = create(model.name, model.key, state=state)
    return cast(dict[str, Tensor], whole.state_dict())


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
            _require_hub(model)
            return cast(nn.Module, _timm(model.key).create_model(model.name, pretrained=True, **options))
    except Exception as error:  # of several HTTP clients, of the hub, of the file system
        raise UserError(
            f"{model.weights_key}: the weights of {model.name} can't be fetched ({one_line(error)}): fetch "
            f"{_address(model)} where there is a network, and name that file: {model.weights_key} FILE"
        ) from None


def _require_hub(model: Pretrained) -> None:
    """Raise an exception of the HTTP client if a model isn't in the hub's cache and the hub can't be reached.

    timm and the hub would try for about a minute: several files, each many times.
    """
    if not (hub_id := _config(model.name, model.key).get("hf_hub_id")):
        return
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError
    from huggingface_hub.utils import http_backoff  # type: ignore[attr-defined]

    repository, _, revision = hub_id.partition("@")
    try:
        snapshot_download(repository, revision=revision or None, local_files_only=True)
    except LocalEntryNotFoundError:
        # Any answer will do: what the hub says of the model is for timm to find out, with all its patience.
        http_backoff(
            "HEAD",
            constants.ENDPOINT,
            max_retries=1,
            base_wait_time=_WAIT,
            retry_on_status_codes=(),
            timeout=constants.HF_HUB_ETAG_TIMEOUT,
        )


def _address(model: Pretrained) -> str:
    """Where the weights of a model are, for a person."""
    config = _config(model.name, model.key)
    if hub_id := config.get("hf_hub_id"):
        return f"https://huggingface.co/{hub_id}/resolve/main/model.safetensors"
    return config.get("url") or f"the weights of {model.name}"


def _read(model: Pretrained) -> dict[str, Tensor]:
    """Read a file of weights: safetensors, or a pickled state dict, of which only tensors are loaded."""
    path = expanded(model.weights)
    try:
        with open_regular(path) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise UserError(
            f"{model.weights_key}: there is no file {path}: name one, or try {model.weights_key} {PRETRAINED}"
        ) from None
    except NotRegular as error:
        raise UserError(f"{model.weights_key}: {error}") from None
    except OSError as error:
        raise RunError(f"{model.weights_key}: {path} can't be read now ({error.strerror})") from None
    if model.sha256 is not None and digest != model.sha256.lower():
        raise UserError(
            f"{model.weights_key}: {path} has SHA-256 {digest}, not {model.sha256}: fetch it again, or correct the "
            "SHA-256"
        )
    try:
        state = _tensors(path, model.key)
        broken = [name for name, each in state.items() if each.is_floating_point() and not each.isfinite().all()]
    except Exception as error:  # of safetensors, pickle, zipfile
        raise UserError(
            f"{model.weights_key}: {path} holds no weights ({one_line(error)}): name another file"
        ) from None
    if broken:
        raise UserError(
            f"{model.weights_key}: {broken[0]} in {path} has Inf or NaN: fetch it again, or name another file"
        )
    return state


def _tensors(path: Path, key: str) -> dict[str, Tensor]:
    """Tensors of a file, whatever its name: safetensors starts with the length of a header in JSON."""
    with open_regular(path) as file:
        is_safetensors = file.read(9)[8:] == b"{"
    if is_safetensors:
        return load_file(path)
    with quiet("timm"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return cast(dict[str, Tensor], _timm(key).models.load_state_dict(str(path), weights_only=True))


def not_in_place(module: nn.Module) -> None:
    """Have no activation overwrite its input: autograd would copy that first, and another layer's output be lost."""
    for each in module.modules():
        if hasattr(each, "inplace"):
            each.inplace = False  # type: ignore[assignment]


def register_normalisation(module: nn.Module, config: dict[str, Any]) -> None:
    """Register the mean and standard deviation of a timm model's input as buffers: [1, 3, 1, 1], for sRGB in [0, 1]."""
    for name in ("mean", "std"):
        module.register_buffer(name, torch.tensor(config[name], dtype=torch.get_default_dtype()).view(1, 3, 1, 1))
