"""Packages of the extras in pyproject.toml: imported where they are used, and one line where one is missing."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from colordist.errors import UserError

Extra = Literal["train", "deepspeed", "wandb", "report", "onnx", "metrics", "datasets", "demo"]


@contextmanager
def needs_extra(extra: Extra, what: str) -> Iterator[None]:
    """Context of imports: turns a missing package into a UserError that names its extra.

    what: needs it, as the error message says: a setting, an option, a command.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        raise UserError(f"{what} needs the package {package}: pip install 'colordist[{extra}]'") from None
