"""What a process takes from its machine: cores, and what may be compiled."""

from collections.abc import Iterator

import pytest
import torch
from helpers import alone_on_the_cpu

from colordist.config import UserError
from colordist.engine.environment import check_compilation, share_cores


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with alone_on_the_cpu(monkeypatch):
        yield


# --- cores


FEW, ENOUGH, OTHERS = {0, 1, 2}, {0, 1, 2, 3}, {4, 5, 6, 7}


@pytest.mark.parametrize(
    ("own", "machine", "threads", "told"),
    [
        (FEW, [FEW, FEW], 1, ("(cores: 3, processes: 2)", "--cpus-per-task 4")),
        ({0}, [{0}, {1}, {2}, {3}], 1, ("(cores: 4, processes: 4)", "--cpus-per-task 2")),
        (ENOUGH, [ENOUGH, ENOUGH], 2, None),
        (ENOUGH, [ENOUGH, OTHERS], 4, None),  # each bound to its own
        (ENOUGH, [ENOUGH, {3}], 3, None),
    ],
)
@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_processes_share_cores_and_a_gpu_needs_two(
    device: str,
    own: set[int],
    machine: list[set[int]],
    threads: int,
    told: tuple[str, str] | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    share_cores(device, own, machine)
    assert torch.get_num_threads() == threads
    lines = [record.message for record in caplog.records]
    assert len(lines) == (device == "cuda" and told is not None)
    assert all(part in line for line in lines for part in told or ())


# --- train.compile


def test_graphs_are_for_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    check_compilation("graphs", "cuda")
    monkeypatch.setenv("WORLD_SIZE", "2")
    check_compilation("default", "cuda")
    with pytest.raises(UserError, match=r"^train\.compile is graphs, .* 2 processes: try train\.compile default$"):
        check_compilation("graphs", "cuda")
