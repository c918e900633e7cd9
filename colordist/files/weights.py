"""Folders with a network's weights (safetensors, which hold no code) and a JSON description."""

import hashlib
import json
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from colordist.config import RunError, UserError
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
from colordist.files.documents import MOST_BYTES
from colordist.files.host_copy import to_host
from colordist.files.opening import open_regular, read_regular


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
        contents["README.md"] = card.encode()
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


def is_description(text: bytes) -> bool:
    """Whether this is the content of a JSON file that ``write`` wrote."""
    try:
        return isinstance(json.loads(text)["format"], int)
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def read(folder: Path, stem: str, what: str, forms: Sequence[int]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read weights and JSON. To be called within ``reading``.

    what: the kind of folder, in a word. forms: the format numbers that this version reads.
    """
    about: dict[str, Any] = json.loads(read_regular(folder / f"{stem}.json", MOST_BYTES))
    if about["format"] not in forms:
        readable = " and ".join(map(str, forms))
        raise UserError(f"{folder} has {what} format {about['format']}, but this version reads {readable}")
    with open_regular(folder / f"{stem}.safetensors") as opened:
        data = opened.read()
    # Older versions wrote no digest.
    if about.get("sha256") not in (None, hashlib.sha256(data).hexdigest()):
        raise ValueError(f"{stem}.safetensors is not what was written")
    return load(data), about


@contextmanager
def reading(folder: Path, stem: str, what: str) -> Iterator[None]:
    """Translate errors of rebuilding a network: a failed read is a RunError, anything else a UserError."""
    try:
        yield
    except ABSENT as error:
        raise UserError(f"{folder} holds no {what}: {error.filename or 'a file'} can't be read") from None
    except KeyError as error:
        raise UserError(f"the {what} in {folder} is damaged: {stem}.json has no {error.args[0]}") from None
    except (OSError, ValueError, TypeError, StopIteration, RuntimeError, MemoryError, SafetensorError) as error:
        if isinstance(error, OSError) or out_of_memory(error):
            raise RunError(f"the {what} in {folder} can't be read now ({reason(error)})") from None
        message = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"the {what} in {folder} is damaged: {message}") from None
