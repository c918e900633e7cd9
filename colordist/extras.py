"""Packages of the extras in pyproject.toml: imported where they are used, and one line where one is missing."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from colordist.errors import UserError, one_line

Extra = Literal["train", "deepspeed", "wandb", "report", "onnx", "metrics", "datasets", "tensorboard", "demo"]


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


def require_package(package: str, extra: Extra | None, what: str) -> None:
    """Import a package that nothing else needs. Raises UserError where it is missing or broken.

    extra: has the package; None: no extra has it, so it is installed by its own name. what: as ``needs_extra``.
    """
    install = f"'colordist[{extra}]'" if extra else package
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise UserError(f"{what} needs the package {error.name}: pip install {install}") from None
    except Exception as error:
        broken = f"needs the package {package}, which can't be imported ({one_line(error, 200)})"
        raise UserError(f"{what} {broken}: pip install --upgrade {install}") from None
