"""Who is found missing, after how long; and what is no reason to stop."""

from dataclasses import replace

import pytest

from colordist.engine.failure_detector import FailureDetector, Heartbeat, Timeouts, fallback_reporter
from colordist.processes import Process


class Room:
    """Some processes, as a judge hears them: one second at a time."""

    def __init__(self, hosts: str = "aabb", heartbeat_timeout: float = 10, stall_timeout: float = 100) -> None:
        self.detector = FailureDetector(Timeouts(heartbeat_timeout, stall_timeout))
        self.heartbeats = {rank: Heartbeat(Process(host), step=41) for rank, host in enumerate(hosts)}
        self.ended: list[int] = []
        self.detector.observe(self.heartbeats, 0)

    def change(self, *ranks: int, **values: object) -> None:
        for rank in ranks:
            self.heartbeats[rank] = replace(self.heartbeats[rank], **values)  # type: ignore[arg-type]

    def listen(self, seconds: int, living: str = "0123", moving: str = "0123") -> str | None:
        """Let these give signs of life, and those get on. Returns the first verdict."""
        for _ in range(seconds):
            for rank, heartbeat in self.heartbeats.items():
                lives, moves = str(rank) in living, str(rank) in moving
                self.heartbeats[rank] = replace(
                    heartbeat, count=heartbeat.count + lives, progress=heartbeat.progress + moves
                )
            self.detector.observe(self.heartbeats, 1, self.ended)
            if verdict := self.detector.verdict():
                return verdict
        return None


def test_a_silent_process_is_named() -> None:
    room = Room()
    assert room.listen(50) is None
    assert room.listen(10, living="013") is None
    assert room.listen(1, living="013") == (
        "process 2 on b has not responded for 10 s (it was at step 41): all stop; the same command continues"
    )


def test_a_silent_machine_is_named_whole() -> None:
    room = Room("abbb")
    room.listen(1, living="023")
    told = room.listen(99, living="0")
    assert told
    assert told.startswith("process 1 on b and 2 others have not responded for 10 s (they were at step 41): all")


def test_one_that_has_ended_is_named_at_once() -> None:
    room = Room()
    room.ended = [2]
    assert room.listen(1, living="013") == (
        "process 2 on b has ended (it was at step 41): all stop; the same command continues"
    )


@pytest.mark.parametrize("state", ["closed", "failed"])
def test_one_that_said_why_has_not_just_ended(state: str) -> None:
    room = Room()
    room.change(2, state=state, reason="KeyError('x')")
    room.ended = [2]
    assert room.listen(30, living="013") == (
        None if state == "closed" else "process 2 on b has failed (KeyError('x')): all stop"
    )


def test_a_broken_connection_shortens_the_wait() -> None:
    room = Room(heartbeat_timeout=30)
    room.change(0, state="lost")
    assert room.listen(5, living="012") is None
    assert (room.listen(1, living="012") or "").startswith("process 3 on b has not responded for 5 s")


def test_a_broken_connection_among_living_processes_is_told_too() -> None:
    room = Room(heartbeat_timeout=30)
    room.change(1, state="lost", reason="reset by peer")
    assert room.listen(31) is None
    assert (room.listen(1) or "").startswith("process 1 on a has lost a connection (reset by peer): all stop")


def test_who_is_behind_and_does_not_get_on_is_named() -> None:
    room = Room()
    room.change(0, 1, 3, collectives=8)  # waiting for process 2
    assert room.listen(100, moving="") is None
    assert room.listen(1, moving="") == (
        "process 2 on b has made no progress for 100 s (it was at step 41): all stop; the same command continues"
    )


def test_nobody_is_stuck_as_long_as_the_one_behind_gets_on() -> None:
    room = Room()
    room.change(0, 1, 3, collectives=8)
    assert room.listen(300, moving="2") is None


def test_all_hang_in_the_same_place() -> None:
    told = Room().listen(101, moving="")
    assert told
    assert told.startswith("no process has made any progress for 100 s (they were at step 41): all stop")


def test_a_failure_is_told_after_the_time_in_which_it_may_be_everybodys() -> None:
    room = Room()
    room.change(1, state="failed", reason="KeyError('x')")
    assert room.listen(5, living="023") is None
    assert room.listen(20, living="023") == "process 1 on a has failed (KeyError('x')): all stop"


def test_after_a_failure_a_broken_connection_is_no_riddle() -> None:
    room = Room()
    room.change(1, state="failed", reason="KeyError('x')")
    room.change(0, state="lost")
    assert room.listen(1, living="023") == "process 1 on a has failed (KeyError('x')): all stop"


def test_whoever_is_done_is_not_missed() -> None:
    room = Room()
    room.change(1, 2, state="closed")
    room.change(0, 3, collectives=8)
    assert room.listen(1000, living="03") is None


@pytest.mark.parametrize(("hosts", "rank"), [("aabb", 2), ("abab", 1), ("aaaa", 1), ("ab", 1)])
def test_the_fallback_reporter_is_on_another_machine_if_there_is_one(hosts: str, rank: int) -> None:
    assert fallback_reporter(hosts) == rank
