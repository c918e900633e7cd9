"""Folders that hold a network's weights (safetensors: no code in them) and a JSON that says what they are."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from colordist.config import UserError
from colordist.run.folder import flush, replace_text


def write(folder: Path, stem: str, module: nn.Module, about: dict[str, Any], card: str | None = None) -> None:
    """Write ``STEM.safetensors`` and ``STEM.json`` into a folder that exists whole or not at all.

    about: plain JSON values; the SHA-256 of the weights is added. card: text for a ``README.md`` beside them. Raises
    what the disk raises.
    """
    temporary = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    weights = save({name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()})
    (temporary / f"{stem}.safetensors").write_bytes(weights)
    flush(temporary / f"{stem}.safetensors")
    description = {"sha256": hashlib.sha256(weights).hexdigest(), **about}
    replace_text(temporary / f"{stem}.json", json.dumps(description, indent=2) + "\n")
    if card is not None:
        replace_text(temporary / "README.md", card)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


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
    """What goes wrong in here while a network is rebuilt is a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{folder} holds no {what}: {error.filename or 'a file'} can't be read") from None
    except KeyError as error:
        raise UserError(f"the {what} in {folder} is damaged: {stem}.json has no {error.args[0]}") from None
    except (ValueError, TypeError, StopIteration, RuntimeError, SafetensorError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"the {what} in {folder} is damaged: {reason}") from None
