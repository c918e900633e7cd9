"""Downloads."""

import contextlib
import logging
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


@contextlib.contextmanager
def quiet(library: str) -> Iterator[None]:
    """Context in which a library logs errors only."""
    logger = logging.getLogger(library)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
