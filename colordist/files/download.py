"""Downloads."""

import contextlib
import socket
from collections.abc import Iterator

_TIMEOUT = 10.0  # seconds without a byte from the server


@contextlib.contextmanager
def download_timeout() -> Iterator[None]:
    """Context with a socket timeout for downloads: torch and torchvision set none."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
