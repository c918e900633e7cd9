"""A trained run and a photograph, made once; the number of cases."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import forking
import hypothesis
import numpy as np
import pytest
from material import AUTOENCODER, SEED, TINY
from PIL import Image

hypothesis.settings.register_profile(
    "fuzz",
    deadline=None,
    derandomize=not SEED,
    database=None,
    print_blob=True,
    suppress_health_check=[*hypothesis.HealthCheck],
)
hypothesis.settings.load_profile("fuzz")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send the counts of cases from xdist's worker to its main process."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["cases"] = forking.COUNTS


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:  # noqa: ANN401  xdist's controller of a worker
    """Add the counts of a worker."""
    for verb, counts in getattr(node, "workeroutput", {}).get("cases", {}).items():
        forking.COUNTS[verb] = [a + b for a, b in zip(forking.COUNTS.get(verb, [0, 0, 0]), counts, strict=True)]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the counts."""
    for verb, (cases, successes, failures) in sorted(forking.COUNTS.items()):
        terminalreporter.write_line(f"{verb}: {cases} cases, {successes} succeeded, {failures} failed")


@pytest.fixture(scope="session", autouse=True)
def _forks(tmp_path_factory: pytest.TempPathFactory) -> None:
    home = tmp_path_factory.mktemp("home")
    os.environ.update(HOME=str(home), HF_HUB_OFFLINE="1", HF_HOME=str(home / "hf"), OMP_NUM_THREADS="1")
    forking.preload()


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, _forks: None) -> Path:
    """A run that was stopped half-way, and evaluated."""
    folder = tmp_path_factory.mktemp("trained")
    tiny = ["train", *TINY, *AUTOENCODER, "--run.dir", "run"]
    assert (done := forking.call([*tiny, "--train.steps", "4"], folder)).code == 0, done
    assert (done := forking.call(["evaluate", "run"], folder)).code == 0, done
    (folder / "run" / "wandb.json").write_text('{"id": "abcd1234", "offline": 3}\n')
    return folder / "run"


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small photograph."""
    file = tmp_path_factory.mktemp("photo") / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    Image.fromarray(pixels).save(file)
    return file


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """An empty folder, to be used by ``fresh`` case after case."""
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)
