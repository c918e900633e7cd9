"""Getting files from the net."""

import contextlib
import socket
from collections.abc import Iterator

_TIMEOUT = 10.0  # seconds without a byte from the server


@contextlib.contextmanager
def download_timeout() -> Iterator[None]:
    """Give up on a silent server: torch and torchvision set no timeout."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
