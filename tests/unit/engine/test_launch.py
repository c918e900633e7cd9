"""What a launcher tells a process, and what is said where that can't be."""

import pytest

from colordist.engine.launch import Launch, is_first
from colordist.errors import UserError

TOLD = (
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
    *("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"),
)
MEETING = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}


def report(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    """Let these variables be all that is set."""
    for name in TOLD:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, Launch(0, 1)),
        ({"MASTER_ADDR": "10.0.0.1"}, Launch(0, 1)),
        ({"RANK": "0", "WORLD_SIZE": "1"}, Launch(0, 1)),
        ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"} | MEETING, Launch(3, 4, 1)),
        ({"RANK": "1", "WORLD_SIZE": "2", "PMI_SIZE": "2"} | MEETING, Launch(1, 2)),
        ({"PMI_SIZE": "1"}, Launch(0, 1)),
    ],
)
def test_a_process_knows_its_place(environment: dict[str, str], found: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    report(monkeypatch, environment)
    assert Launch.read() == found
    assert is_first() == (found.rank == 0)


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is '2', but RANK is not set"),
        ({"RANK": "1"}, "RANK is '1', but WORLD_SIZE is not set"),
        ({"LOCAL_RANK": "0"}, "LOCAL_RANK is '0', but WORLD_SIZE is not set"),
        ({"LOCAL_WORLD_SIZE": "2"}, "LOCAL_WORLD_SIZE is '2', but WORLD_SIZE is not set"),
        ({"RANK": "0", "WORLD_SIZE": "abc"}, "WORLD_SIZE is 'abc', but must be a whole number, at least 1"),
        ({"RANK": "0", "WORLD_SIZE": ""}, "WORLD_SIZE is '', but must be a whole number"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "WORLD_SIZE is '0', but must be a whole number, at least 1"),
        ({"RANK": "-1", "WORLD_SIZE": "1"}, "RANK is '-1', but must be a whole number, at least 0"),
        ({"RANK": "1.5", "WORLD_SIZE": "2"}, "RANK is '1.5', but must be a whole number"),
        ({"RANK": "2", "WORLD_SIZE": "2"} | MEETING, "RANK is 2, but WORLD_SIZE is 2"),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "2"} | MEETING, "LOCAL_RANK is 2, but WORLD_SIZE is 2"),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "x"} | MEETING, "LOCAL_WORLD_SIZE is 'x'"),
        ({"RANK": "0", "WORLD_SIZE": "2"} | MEETING | {"MASTER_PORT": "0"}, "MASTER_PORT is 0, but must be a port"),
        ({"RANK": "0", "WORLD_SIZE": "2"} | MEETING | {"MASTER_PORT": "65536"}, "MASTER_PORT is '65536', but must be"),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "0"} | MEETING, "LOCAL_WORLD_SIZE is '0'"),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "3"} | MEETING, "LOCAL_WORLD_SIZE is 3, but WORLD_SIZE"),
        ({"RANK": "0", "WORLD_SIZE": "2"} | MEETING | {"MASTER_PORT": "a"}, "MASTER_PORT is 'a'"),
        ({"PMI_SIZE": "2"}, "PMI_SIZE is 2"),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, "OMPI_COMM_WORLD_SIZE is 4"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(
    environment: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    report(monkeypatch, environment)
    with pytest.raises(UserError) as refused:
        Launch.read()
    assert told in str(refused.value)
    assert "start with accelerate launch or torchrun" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert is_first()  # it speaks for itself
