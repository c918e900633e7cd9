"""Rendezvous by torch's ``env://``, with a key prefix for each restart by the launcher (``--max_restarts``).

The launcher's store outlives the processes. Without a prefix, restarted processes would find the addresses (torch 2.15)
and heartbeats of the previous ones there, and fail.
"""

import os
from collections.abc import Iterator
from typing import Any

from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]
from torch.distributed.rendezvous import register_rendezvous_handler, rendezvous

METHOD = "colordist://"
"""The ``init_method`` for ``init_process_group``."""


def _rendezvous_handler(_: str, **options: Any) -> Iterator[tuple[Store, int, int]]:  # noqa: ANN401  those of env://
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store, rank, world_size = next(rendezvous("env://", **options))
    yield PrefixStore(f"attempt-{attempt}", store), rank, world_size


register_rendezvous_handler(METHOD.removesuffix("://"), _rendezvous_handler)
