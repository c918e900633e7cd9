"""What a process takes from its machine: cores, and what may be compiled."""

import os
from collections.abc import Iterator

import pytest
import torch
from helpers import alone_on_the_cpu

from colordist.config import UserError
from colordist.engine.environment import check_compilation, share_cores

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with alone_on_the_cpu(monkeypatch):
        yield


# --- cores


@pytest.mark.parametrize(("device", "warns"), [("cuda", True), ("cpu", False)])
def test_less_than_two_cores_for_a_gpu_get_a_warning(
    device: str, warns: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(CORES))
    share_cores(device)
    assert torch.get_num_threads() == 1
    lines = [record.message for record in caplog.records]
    assert len(lines) == warns
    told = f"(cores: {CORES}, processes: {CORES})", f"--cpus-per-task {2 * CORES}"
    assert all(part in line for line in lines for part in told)


@pytest.mark.skipif(CORES < 2, reason="this machine has one core")
def test_two_cores_for_a_gpu_are_enough(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(CORES // 2))
    share_cores("cuda")
    assert torch.get_num_threads() == CORES // (CORES // 2)
    assert not caplog.records


# --- train.compile


def test_graphs_are_for_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    check_compilation("graphs", "cuda")
    monkeypatch.setenv("WORLD_SIZE", "2")
    check_compilation("default", "cuda")
    with pytest.raises(UserError, match=r"^train\.compile is graphs, .* 2 processes: try train\.compile default$"):
        check_compilation("graphs", "cuda")
