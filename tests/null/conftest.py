"""The null device, built once. Its tests are skipped, with the reason, where it can't be, and fail there under CI."""

import os
from pathlib import Path

import pytest
from null_build import build, why_not


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The null device's library."""
    if reason := why_not():
        if os.environ.get("CI"):
            pytest.fail(f"the null device {reason}")
        pytest.skip(reason)
    return build(tmp_path_factory.mktemp("null"))
