"""What isn't ours and has to be fetched: packages that few need, and weights that others trained."""

import contextlib
import http.client
import pickle
from collections.abc import Iterator

import torch

from colordist.config import UserError
from colordist.files.download import download_timeout


@contextlib.contextmanager
def fetched(network: str, package: str, url: str | None = None) -> Iterator[None]:
    """What can't be had in here is a UserError. network: the word in evaluate.networks; url: of its weights."""
    leave_out = f"or leave {network} out of evaluate.networks"
    try:
        with download_timeout():
            yield
    except ImportError:
        raise UserError(
            f"evaluate.networks: {network} needs {package}: pip install 'colordist[metrics]', {leave_out}"
        ) from None
    except (OSError, RuntimeError, EOFError, http.client.HTTPException, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(
            f"evaluate.networks: the weights of {network} can't be had ({reason}): put {url} into "
            f"{torch.hub.get_dir()}/checkpoints, {leave_out}"
        ) from None
