"""Where processes meet: as by torch's ``env://``, but each attempt of a launcher (``--max_restarts``) for itself.

The launcher's store outlives the processes. In torch 2.15 the next ones would find there the addresses of the dead, try
to reach them, and fail; so does the watch find their last words.
"""

import os
from collections.abc import Iterator
from typing import Any

from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]
from torch.distributed.rendezvous import register_rendezvous_handler, rendezvous

METHOD = "colordist://"
"""For ``init_process_group``."""


def _meet(_: str, **options: Any) -> Iterator[tuple[Store, int, int]]:  # noqa: ANN401  those of env://
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store, rank, world_size = next(rendezvous("env://", **options))
    yield PrefixStore(f"attempt-{attempt}", store), rank, world_size


register_rendezvous_handler(METHOD.removesuffix("://"), _meet)
