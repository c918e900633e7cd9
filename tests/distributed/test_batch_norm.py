"""Batch normalisation sees the global batch, on however many processes: one launch a number of them."""

from pathlib import Path
from typing import Any

import pytest
from test_invariance import AUTOENCODER, COMMON, FP64, STEPS, learned, seen

from launch import records, work

pytestmark = [pytest.mark.dist, pytest.mark.slow]

BATCH_NORM = {"model.norm": "batch", "discriminator.norm": "batch"}
CASES: dict[str, dict[str, Any]] = {
    "autoencoder": AUTOENCODER | {"model.name": "autoencoder"},
    "cgan": {},
    "cgan-plain": {"discriminator.spectral_norm": False, "discriminator.output": "image"},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the runs are, as CASE-PROCESSES."""
    root = tmp_path_factory.mktemp("batch-norm")
    for processes in (1, 2, 3):
        work(
            [
                {"run": str(root / f"{case}-{processes}"), "settings": COMMON | FP64 | BATCH_NORM | own}
                for case, own in CASES.items()
            ],
            root,
            processes,
        )
    return root


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("case", CASES)
def test_it_does_not_depend_on_the_number_of_processes(case: str, processes: int, runs: Path) -> None:
    """Weights, Adam's moments, averages, running statistics; losses and scores."""
    alone, together = runs / f"{case}-1", runs / f"{case}-{processes}"
    expected, found = learned(alone), learned(together)
    assert found.keys() == expected.keys()
    assert any(name.startswith("/generator/ema/") and name.endswith("running_var") for name in expected)
    for name, value in expected.items():
        assert (found[name] - value).norm() <= 1e-9 * value.norm(), name
    for one, many in zip(records(alone), records(together), strict=True):
        assert many == pytest.approx(one, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("case", CASES)
def test_all_processes_end_with_the_same_bits(case: str, processes: int, runs: Path) -> None:
    first, *others = seen(runs / f"{case}-{processes}", processes)
    assert any(name.endswith("running_var") for name in first["digests"])
    assert all(other["digests"] == first["digests"] for other in others)


@pytest.mark.parametrize("case", CASES)
def test_running_statistics_follow_in_their_own_turns_only(case: str, runs: Path) -> None:
    turns = {"generator": STEPS, "discriminator": STEPS - COMMON["loss.warmup_steps"]}
    for name, value in learned(runs / f"{case}-3").items():
        if name.endswith("num_batches_tracked"):
            assert value == turns[name.split("/")[1]], name
