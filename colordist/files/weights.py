"""Folders with a network's weights (safetensors, which hold no code) and a JSON description."""

import hashlib
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from colordist.errors import RunError, UserError, one_line
from colordist.files import atomic as files
from colordist.files.atomic import (
    ABSENT,
    content,
    exchange,
    exists,
    flush,
    holds_only,
    out_of_memory,
    point,
    reason,
    remove_folder,
    sweep,
    temporary,
)
from colordist.files.documents import Malformed, parse_json, typed
from colordist.files.host_copy import to_host
from colordist.files.opening import MOST_BYTES, read_regular

T = TypeVar("T")
_MOST_WEIGHTS = 2**34  # bytes of weights: 4 billion parameters in fp32


def write(
    folder: Path,
    stem: str,
    module: nn.Module,
    about: dict[str, Any],
    card: str | None = None,
    link: Path | None = None,
) -> None:
    """Write a folder with ``STEM.safetensors`` and ``STEM.json`` atomically; replaces an earlier one.

    about: plain JSON values; the SHA-256 of the weights is added. card: text of a ``README.md``. link: a symbolic link
    beside the folder to point there; it points to a complete folder at any moment. Raises UserError for an existing
    folder with other content, and OSError.
    """
    folder = folder.resolve()
    require_own(folder, stem)
    weights = save({name: tensor.contiguous() for name, tensor in to_host(module.state_dict()).items()})
    description = json.dumps({"sha256": hashlib.sha256(weights).hexdigest(), **about}, indent=2) + "\n"
    contents = {f"{stem}.safetensors": weights, f"{stem}.json": description.encode()}
    if card is not None:
        contents["README.md"] = card.encode(errors="replace")
    draft = temporary(folder)
    _fill(draft, contents)
    if not exists(folder):
        draft.rename(folder)
    elif not exchange(draft, folder):
        if link is not None:
            spare = temporary(folder, "spare")
            _fill(spare, contents)
            point(link, spare.name)
        _replace(folder, draft, _names(stem))
    flush(folder.parent)
    if link is not None:
        point(link, folder.name)
    sweep(folder.parent, _names(stem))


def _names(stem: str) -> set[str]:
    """Names of all files that ``write`` writes."""
    return {f"{stem}.safetensors", f"{stem}.json", "README.md"}


def _fill(folder: Path, contents: dict[str, bytes]) -> None:
    """Write and fsync a folder."""
    with suppress(FileNotFoundError):  # left by a killed process with the same PID
        remove_folder(folder, contents)
    folder.mkdir(parents=True)
    for name, data in contents.items():
        with (folder / name).open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    flush(folder)


def _replace(folder: Path, draft: Path, names: Collection[str]) -> None:
    """Replace a folder by a draft in two renames, where they can't be exchanged atomically."""
    aside = temporary(folder, "old")
    with suppress(FileNotFoundError):  # left by a killed process with the same PID
        remove_folder(aside, names)
    folder.rename(aside)
    try:
        draft.rename(folder)
    except OSError:
        aside.rename(folder)
        raise


def require_own(folder: Path, stem: str) -> None:
    """Raise UserError for an existing folder not written by ``write``, or with other files: it mustn't be replaced."""
    if not exists(folder):
        return
    with files.reading(folder):
        own = holds_only(folder, _names(stem))
    if not (own and is_description(content(folder / f"{stem}.json") or b"")):
        raise UserError(f"{folder} is there already and is no {stem}, or holds other files, too: name another folder")


class _Head(msgspec.Struct):
    """What each description has."""

    format: int
    sha256: str | None = None
    """Of the weights; older versions wrote none."""


def is_description(text: bytes) -> bool:
    """Whether this is the content of a JSON file that ``write`` wrote."""
    try:
        parse_json(text, _Head)
    except Malformed:
        return False
    return True


def read(folder: Path, stem: str, what: str, forms: Sequence[int]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read weights and JSON. To be called within ``reading``.

    what: the kind of folder, in a word. forms: the format numbers that this version reads.
    """
    about = parse_json(read_regular(folder / f"{stem}.json", MOST_BYTES), dict[str, Any])
    head = describe(about, _Head, stem)
    if head.format not in forms:
        readable = " and ".join(map(str, forms))
        raise UserError(f"{folder} has {what} format {head.format}, but this version reads {readable}")
    data = read_regular(folder / f"{stem}.safetensors", _MOST_WEIGHTS)
    if head.sha256 not in (None, hashlib.sha256(data).hexdigest()):
        raise ValueError(f"{stem}.safetensors is not what was written")
    tensors = load(data)
    require_finite(tensors)
    return tensors, about


def describe(about: dict[str, Any], kind: type[T], stem: str) -> T:
    """The content of ``STEM.json`` as a type. Raises Malformed."""
    try:
        return typed(about, kind)
    except Malformed as error:
        raise Malformed(f"{stem}.json: {error}") from None


def require_finite(tensors: Mapping[str, Tensor], prefix: str = "") -> None:
    """Raise ValueError for a tensor with Inf or NaN, by its name. prefix: what stands before it."""
    for name, tensor in tensors.items():
        if not (tensor < float("inf")).all():  # false for NaN; masks of attention are -inf
            raise ValueError(f"{prefix}{name} has Inf or NaN")


@contextmanager
def reading(folder: Path, stem: str, what: str) -> Iterator[None]:
    """Translate errors of rebuilding a network: a failed read is a RunError, anything else a UserError."""
    try:
        yield
    except ABSENT as error:
        raise UserError(f"{folder} holds no {what}: {error.filename or 'a file'} can't be read") from None
    except (OSError, ValueError, TypeError, StopIteration, RuntimeError, MemoryError, SafetensorError) as error:
        if isinstance(error, OSError) or out_of_memory(error):
            raise RunError(f"the {what} in {folder} can't be read now ({reason(error)})") from None
        first = (str(error).splitlines() or [""])[0]
        message = one_line(first, 200) or type(error).__name__
        raise UserError(f"the {what} in {folder} is damaged: {message}") from None
