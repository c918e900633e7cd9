"""Folders that hold a network's weights (safetensors: no code in them) and a JSON that says what they are."""

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


def write(
    folder: Path,
    stem: str,
    module: nn.Module,
    about: dict[str, Any],
    card: str | None = None,
    link: Path | None = None,
) -> None:
    """Write ``STEM.safetensors`` and ``STEM.json`` into a folder that exists whole or not at all.

    One that is there is replaced, if it is one of ours; killed at any moment, the old or the new one is complete.

    about: plain JSON values; the SHA-256 of the weights is added. card: text for a ``README.md`` beside them. link: a
    symbolic link beside the folder, which leads there in the end, and to a complete one at any moment. Raises UserError
    for a folder that holds something else, and what the disk raises.
    """
    folder = folder.resolve()
    require_own(folder, stem)
    weights = save({name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()})
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
    """All that is ever written into a folder."""
    return {f"{stem}.safetensors", f"{stem}.json", "README.md"}


def _fill(folder: Path, contents: dict[str, bytes]) -> None:
    """Write a folder, and see it on the disk."""
    with suppress(FileNotFoundError):  # what a process of the same number has left
        remove_folder(folder, contents)
    folder.mkdir(parents=True)
    for name, data in contents.items():
        with (folder / name).open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    flush(folder)


def _replace(folder: Path, draft: Path, names: Collection[str]) -> None:
    """Give a folder another one's place, where the disk can't do that at once."""
    aside = temporary(folder, "old")
    with suppress(FileNotFoundError):  # what a process of the same number has left
        remove_folder(aside, names)
    folder.rename(aside)
    try:
        draft.rename(folder)
    except OSError:
        aside.rename(folder)
        raise


def require_own(folder: Path, stem: str) -> None:
    """Raise UserError for a folder that is there, unless all of it was written by ``write``: it may be replaced."""
    if not exists(folder):
        return
    with files.reading(folder):
        own = holds_only(folder, _names(stem))
    about = content(folder / f"{stem}.json") if own else None
    try:
        own = isinstance(json.loads(about or b"")["format"], int)
    except (ValueError, KeyError, TypeError, RecursionError):
        own = False
    if not own:
        raise UserError(f"{folder} is there already and is no {stem}, or holds other files, too: name another folder")


def read(folder: Path, stem: str, what: str, forms: Sequence[int]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights, and all of the JSON. Within ``reading``.

    what: it is, in a word. forms: the format numbers that this version reads.
    """
    about: dict[str, Any] = json.loads((folder / f"{stem}.json").read_text())
    if about["format"] not in forms:
        readable = " and ".join(map(str, forms))
        raise UserError(f"{folder} has {what} format {about['format']}, but this version reads {readable}")
    data = (folder / f"{stem}.safetensors").read_bytes()
    # Older ones don't say it.
    if about.get("sha256") not in (None, hashlib.sha256(data).hexdigest()):
        raise ValueError(f"{stem}.safetensors is not what was written")
    return load(data), about


@contextmanager
def reading(folder: Path, stem: str, what: str) -> Iterator[None]:
    """What goes wrong in here while a network is rebuilt is a UserError; a read that fails is a RunError."""
    try:
        yield
    except ABSENT as error:
        raise UserError(f"{folder} holds no {what}: {error.filename or 'a file'} can't be read") from None
    except KeyError as error:
        raise UserError(f"the {what} in {folder} is damaged: {stem}.json has no {error.args[0]}") from None
    except (OSError, ValueError, TypeError, StopIteration, RuntimeError, MemoryError, SafetensorError) as error:
        if isinstance(error, OSError) or out_of_memory(error):
            raise RunError(f"the {what} in {folder} can't be read now ({reason(error)})") from None
        told = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"the {what} in {folder} is damaged: {told}") from None
