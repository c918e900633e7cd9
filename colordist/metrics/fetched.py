"""Networks of others, whose weights have to be downloaded."""

import contextlib
import http.client
import pickle
from collections.abc import Iterator

import torch

from colordist.errors import UserError, one_line
from colordist.files.download import download_timeout


@contextlib.contextmanager
def fetched(metric: str, url: str) -> Iterator[None]:
    """Turn a failed download in here into a UserError. url: of the weights."""
    try:
        with download_timeout():
            yield
    except (OSError, RuntimeError, EOFError, http.client.HTTPException, pickle.UnpicklingError) as error:
        raise UserError(
            f"evaluate.metrics: the weights of {metric} can't be loaded ({one_line(error)}): put {url} into "
            f"{torch.hub.get_dir()}/checkpoints, or leave {metric} out of evaluate.metrics"
        ) from None
