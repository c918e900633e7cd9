"""Networks of others: optional packages, and weights that have to be downloaded."""

import contextlib
import http.client
import pickle
from collections.abc import Iterator

import torch

from colordist.config import UserError, one_line
from colordist.files.download import download_timeout


@contextlib.contextmanager
def fetched(metric: str, package: str, url: str | None = None) -> Iterator[None]:
    """Turn a missing package or a failed download in here into a UserError. url: of the weights."""
    leave_out = f"or leave {metric} out of evaluate.metrics"
    try:
        with download_timeout():
            yield
    except ImportError:
        raise UserError(
            f"evaluate.metrics: {metric} needs {package}: pip install 'colordist[metrics]', {leave_out}"
        ) from None
    except (OSError, RuntimeError, EOFError, http.client.HTTPException, pickle.UnpicklingError) as error:
        raise UserError(
            f"evaluate.metrics: the weights of {metric} can't be loaded ({one_line(error)}): put {url} into "
            f"{torch.hub.get_dir()}/checkpoints, {leave_out}"
        ) from None
