"""Processes on NCCL that die or can't start: one line says which and what to do, and the same command continues."""

import signal
from pathlib import Path
from typing import Any

import pytest
from null_ranks import HOST, TINY, Rank, ranks, records, wait_for_step
from test_null_nccl import BACKENDS

pytestmark = [pytest.mark.null]

ENDLESS: dict[str, Any] = TINY | {"train.steps": 10**5, "evaluate.every": 10**5, "checkpoint.every": 20}


def assert_one_line(group: list[Rank], reporter: int, begin: str, end: str) -> None:
    """colordist says one thing, on one rank, and PyTorch nothing."""
    for number, rank in enumerate(group):
        assert len(rank.messages) == (number == reporter), rank.text
        for noise in ("Traceback", "frame #", "[rank"):
            assert noise not in rank.text
    assert group[reporter].messages[0].startswith(f"colordist: {begin}")
    assert group[reporter].messages[0].endswith(end)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_killed_process_is_named_and_the_same_command_continues(backend: str, library: Path, tmp_path: Path) -> None:
    variables = BACKENDS[backend] | {"NULL_NCCL_FAILURE": "reported", "HOME": str(tmp_path)}
    with ranks(library, tmp_path, ENDLESS, variables=variables) as group:
        wait_for_step(tmp_path, 40, group)
        group[1].kill()
        assert group[0].code() == 1
        begin, end = f"process 1 on {HOST} has ended (it was at step", "the same command continues"
        assert_one_line(group, 0, begin, end)
    assert not list((tmp_path / ".cache").rglob("*trace*"))  # PyTorch writes one for each process, into the home
    before = records(tmp_path)[-1]["step"]
    with ranks(library, tmp_path, ENDLESS, variables=variables) as group:
        wait_for_step(tmp_path, int(before) + 20, group)
        group[0].process.send_signal(signal.SIGTERM)
        assert [rank.code() for rank in group] == [0, 0], "\n".join(rank.text for rank in group)
    assert (tmp_path / "run" / "stopped").exists()
    steps = [line["step"] for line in records(tmp_path)][2:]
    assert steps == list(range(2, 2 * len(steps) + 1, 2))


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_is_named_where_nccl_notices_nothing(victim: int, library: Path, tmp_path: Path) -> None:
    with ranks(library, tmp_path, ENDLESS | {"run.heartbeat_timeout": 4}) as group:
        wait_for_step(tmp_path, 10, group)
        group[victim].kill()
        survivor = 1 - victim
        assert group[survivor].code() == 1
        how = "has not responded for 4 s" if victim == 0 else "has ended"  # with process 0, the store ends
        begin = f"process {victim} on {HOST} {how} (it was at step"
        assert_one_line(group, survivor, begin, "the same command continues")


def test_a_process_that_dies_while_nccl_starts_is_named(library: Path, tmp_path: Path) -> None:
    with ranks(
        library, tmp_path, TINY | {"run.heartbeat_timeout": 4}, variables={"NULL_NCCL_FAILURE": "death"}
    ) as group:
        assert group[1].code() == -signal.SIGKILL
        assert group[0].code() == 1
        assert_one_line(group, 0, f"process 1 on {HOST} has ended", "the same command continues")


@pytest.mark.parametrize(
    ("backend", "reason"),
    [
        ("nccl", "socketStartConnect: Connect to 10.0.0.7<45871> failed : Software caused connection abort"),
        ("nccl2", "Failed to initialize NCCL communicator: unhandled system error"),  # it doesn't ask NCCL for more
    ],
)
def test_where_nccl_does_not_start_its_reason_and_a_way_out_are_given(
    backend: str, reason: str, library: Path, tmp_path: Path
) -> None:
    with ranks(library, tmp_path, TINY, variables=BACKENDS[backend] | {"NULL_NCCL_FAILURE": "start"}) as group:
        assert [rank.code() for rank in group] == [1, 1]
        begin = f"NCCL failed to start on 2 processes ({reason}"
        assert_one_line(group[:1], 0, begin, "names a network that connects all machines")


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_process_may_see_a_gpu_of_its_own(backend: str, library: Path, tmp_path: Path) -> None:
    """As ``srun --gpus-per-task 1`` starts them."""
    variables = BACKENDS[backend] | {"CUDA_VISIBLE_DEVICES": "0"}  # of its own, where the others can't be seen
    with ranks(library, tmp_path, TINY, devices=1, variables=variables) as group:
        assert [rank.code() for rank in group] == [0, 0], "\n".join(rank.text for rank in group)
    assert records(tmp_path)[-1]["step"] == 6
