"""What holds for all unit tests."""

import logging
from collections.abc import Iterator

import hypothesis
import pytest

# The same examples each time, however slow the machine is.
hypothesis.settings.register_profile("unit", deadline=None, derandomize=True)
hypothesis.settings.load_profile("unit")


@pytest.fixture(autouse=True)
def _log_handlers() -> Iterator[None]:
    """A verb run in this process logs to the test's captured stream, which is closed afterwards."""
    log = logging.getLogger("colordist")
    handlers, level = log.handlers[:], log.level
    yield
    log.handlers[:] = handlers
    log.setLevel(level)
