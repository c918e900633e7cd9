"""What no unit test leaves to the next one."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _log_handlers() -> Iterator[None]:
    """A verb run in this process logs to the test's captured stream, which is closed afterwards."""
    log = logging.getLogger("colordist")
    handlers, level = log.handlers[:], log.level
    yield
    log.handlers[:] = handlers
    log.setLevel(level)
