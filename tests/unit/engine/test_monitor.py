"""Watches in threads: who tells that one is missing, who is ended, and that all stop after the same step."""

import os
import pickle
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from random import Random
from typing import cast

import pytest
from torch.distributed import DistNetworkError, HashStore, Store, TCPStore  # type: ignore[attr-defined]

from colordist.engine import failure_detector as detector
from colordist.engine import monitor
from colordist.engine.failure_detector import Heartbeat, Timeouts
from colordist.engine.monitor import Monitor
from colordist.processes import Process

FAST = Timeouts(heartbeat_timeout=0.6, stall_timeout=0.9)  # ten signs of life a second
GRACE = 0.5


class Desk:
    """Watches of some processes, in threads of this one, and what became of them."""

    def __init__(
        self,
        stores: list[Store],
        timeouts: Timeouts = FAST,
        *,
        launchers_store: bool = False,
        processes: list[Process] | None = None,
    ) -> None:
        processes = processes or [Process(f"node{rank}") for rank in range(len(stores))]
        self.said: list[tuple[int, str]] = []
        self.ended = [threading.Event() for _ in stores]
        self.watches = [
            Monitor(
                store,
                rank,
                len(stores),
                processes[rank],
                timeouts,
                launchers_store=launchers_store,
                report=partial(self._report, rank),
                terminate=self.ended[rank].set,
            )
            for rank, store in enumerate(stores)
        ]
        for each in self.watches:
            each.start()

    def _report(self, rank: int, line: str) -> None:
        self.said.append((rank, line))

    def exchange(self, count: int = 2) -> None:
        """Wait until each has exchanged so many heartbeats from now on."""
        goals = [each._own.count + count for each in self.watches]
        deadline = time.monotonic() + 20
        while any(each._own.count <= goal for each, goal in zip(self.watches, goals, strict=True)):
            assert time.monotonic() < deadline
            for each in self.watches:
                each._wakeup.put(None)
                each.progress()
            time.sleep(0.01)

    def all_end(self, *ranks: int) -> bool:
        return all(self.ended[rank].wait(20) for rank in ranks)


class Wire:
    """A process's own way to a store: it can be cut, and it can clog."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.cut = False
        self.clogged = False

    def _pass(self) -> None:
        if self.cut:
            raise DistNetworkError("Broken pipe")
        while self.clogged:
            time.sleep(0.01)

    def set(self, key: str, value: str, /) -> None:
        self._pass()
        self.store.set(key, value)

    def get(self, key: str, /) -> bytes:
        return self.store.get(key)

    def multi_get(self, keys: list[str], /) -> list[bytes]:
        self._pass()
        return list(self.store.multi_get(keys))


def sent(watch: Monitor, store: Store) -> Heartbeat:
    """A heartbeat that a process sends, as the others receive it."""
    watch._send(store)
    heartbeat: Heartbeat = pickle.loads(store.get(monitor._key(watch.rank)))
    return heartbeat


@contextmanager
def desk(count: int, *, launchers_store: bool = False) -> Iterator[tuple[Desk, list[Wire]]]:
    store = HashStore()
    wires = [Wire(store) for _ in range(count)]
    made = Desk([cast(Store, wire) for wire in wires], launchers_store=launchers_store)
    with pytest.MonkeyPatch.context() as patch:
        for module in (detector, monitor):
            patch.setattr(module, "GRACE", GRACE)
        try:
            yield made, wires
        finally:
            for wire in wires:
                wire.cut, wire.clogged = True, False
            for each in made.watches:
                each.close()


def test_a_single_process_has_no_thread() -> None:
    before = threading.active_count()
    alone = Monitor()
    alone.start()
    with alone.stall_exempt("decoding"):
        alone.enter_collective()
        alone.progress()
        alone.at_step(1)
    alone.lost("never")
    assert threading.active_count() == before
    assert alone.stops_after(3) is None
    alone.request_stop("SIGTERM")
    assert alone.stops_after(4) == "SIGTERM"
    alone.close()


def test_a_single_process_that_hangs_is_ended() -> None:
    desk = Desk([HashStore()])
    desk.exchange()
    assert not desk.said
    with desk.watches[0].stall_exempt("decoding"):
        desk.watches[0].at_step(3)
        assert not desk.ended[0].wait(1.5 * FAST.stall_timeout)
    assert desk.all_end(0)
    assert [line.split(":")[0] for _, line in desk.said] == ["no progress for 1 s (it was at step 3)"]


def test_a_single_process_stops_at_once_when_it_is_watched() -> None:
    desk = Desk([HashStore()])
    desk.watches[0].request_stop("SIGTERM")
    assert desk.watches[0].stops_after(4) == "SIGTERM"
    desk.watches[0].close()
    assert not desk.said


def test_a_report_that_nobody_can_read_is_no_error() -> None:
    """The process has yet to end."""
    reader, writer = os.pipe()
    os.close(reader)
    stderr = os.dup(2)
    os.dup2(writer, 2)
    try:
        monitor._report("all stop")
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(writer)


def test_an_error_of_the_backend_is_passed_on() -> None:
    """The main thread may be waiting for the device, and not know of it."""
    store, errors = HashStore(), [""]
    watch = Monitor(store, 0, 2, Process("node0"), FAST, connection_error=lambda: errors[0])
    assert sent(watch, store).state == "working"
    errors[0] = "NCCL: remote error"
    heartbeat = sent(watch, store)
    assert (heartbeat.state, heartbeat.reason) == ("lost", "NCCL: remote error")


def test_work_that_is_exempt_from_the_stall_timeout_counts_as_progress() -> None:
    store = HashStore()
    watch = Monitor(store, 0, 2, Process("node0"), FAST)
    with watch.stall_exempt("decoding images"):
        before, busy = sent(watch, store), sent(watch, store)
    after, later = sent(watch, store), sent(watch, store)
    assert before.progress < busy.progress
    assert after.progress == later.progress


def test_the_first_request_of_a_stop_is_sent_with_its_reason() -> None:
    store = HashStore()
    watch = Monitor(store, 0, 2, Process("node0"), FAST)
    watch.request_stop("SIGUSR1")
    watch.request_stop("SIGTERM")
    assert sent(watch, store).vote.requested == "SIGUSR1"


def test_processes_that_get_on_are_left_alone_and_close_in_any_order() -> None:
    with desk(3) as (made, _):
        for _ in range(15):
            for each in made.watches:
                each.progress()
            time.sleep(0.1)
        for each in made.watches:
            each.close()
            time.sleep(1.2 * FAST.heartbeat_timeout)
        assert made.said == []
        assert not any(ended.is_set() for ended in made.ended)


def test_one_that_has_ended_on_this_machine_is_not_waited_for() -> None:
    me, store = Process.current(), HashStore()
    ended = replace(me, pid=2**22 + 1)  # more than Linux has
    made = Desk([store, store], Timeouts(heartbeat_timeout=1000), processes=[me, ended], launchers_store=True)
    made.watches[0].lost("[gloo/pair.cc:1] Connection closed by peer", seconds=20)
    assert made.all_end(0)
    assert made.said[0] == (
        0,
        f"process 1 on {me.host} has ended (it was at step 0): all stop; the same command continues",
    )
    for each in made.watches:
        each.close()


def test_a_frozen_process_ends_the_others_and_one_of_them_speaks() -> None:
    with desk(3) as (made, wires):
        wires[1].clogged = True
        assert made.all_end(0, 2)
        ((rank, line),) = [said for said in made.said if said[0] != 1]
        assert rank == 0
        assert line.startswith("process 1 on node1 has not responded")


def test_a_hanging_process_is_ended_with_the_others() -> None:
    with desk(3) as (made, _):
        made.watches[0].enter_collective()
        made.watches[2].enter_collective()
        assert made.all_end(0, 1, 2)
        ((rank, line),) = made.said
        assert rank == 0
        assert line.startswith("process 1 on node1 has made no progress")


@pytest.mark.parametrize("fault", ["cut", "clogged"])
@pytest.mark.parametrize("launchers_store", [False, True])
def test_when_the_store_is_gone_the_heir_speaks(fault: str, launchers_store: bool) -> None:
    with desk(3, launchers_store=launchers_store) as (made, wires):
        made.exchange()
        for wire in wires if launchers_store else wires[1:]:
            setattr(wire, fault, True)
        assert made.all_end(*range(0 if launchers_store else 1, 3))
        told = [(rank, line) for rank, line in made.said if rank]
        who = "the launcher of process 0" if launchers_store else "process 0"
        how = "is gone" if fault == "cut" else "has not responded"
        assert [rank for rank, _ in told] == [1]
        assert told[0][1].startswith(f"{who} on node0 {how}")


@pytest.mark.parametrize("rank", [0, 2])
def test_none_outlives_its_launcher_for_the_heirs_sake(rank: int) -> None:
    """The first one holds the lock of the run folder, for which the same command, begun again, waits."""
    with desk(3, launchers_store=True) as (made, _), pytest.MonkeyPatch.context() as patch:
        made.exchange()
        patch.setattr(monitor, "GRACE", 1000.0)
        watch = made.watches[rank]
        watch._store_failed = True
        if rank:
            assert watch._store_lost(since_exchange=0) is None  # it may be the network
            patch.setattr(os, "getppid", lambda: 1)
        lost = watch._store_lost(since_exchange=0)
        assert lost == f"the launcher of process 0 on node0 is gone (it was at step 0): {detector.ALL_STOP}"
        assert watch._must_end(lost)
        assert made.said == []


def test_when_the_first_process_is_frozen_the_heir_speaks() -> None:
    with desk(3) as (made, wires):
        made.exchange()
        wires[0].clogged = True
        assert made.all_end(1, 2)
        told = [(rank, line) for rank, line in made.said if rank]
        assert [rank for rank, _ in told] == [1]
        assert told[0][1].startswith("process 0 on node0 has not responded")


def test_a_failure_of_all_is_told_by_nobody_here() -> None:
    with desk(3) as (made, _):
        for each in made.watches:
            each.fail("a mistake")
        time.sleep(3 * GRACE)
        assert made.said == []
        assert not any(ended.is_set() for ended in made.ended)


def test_a_failure_of_one_is_told_by_the_first() -> None:
    with desk(3) as (made, _):
        made.watches[2].fail("a\nmistake")
        assert made.all_end(0, 1)
        assert made.said == [(0, "process 2 on node2 has failed (a mistake): all stop")]


def test_a_failure_of_the_first_is_told_by_itself() -> None:
    with desk(3) as (made, _):
        made.watches[0].fail("a mistake")
        assert made.all_end(1, 2)
        assert made.said == []


def test_who_has_lost_another_is_ended_when_it_is_known_whom() -> None:
    with desk(3) as (made, wires):
        wires[1].clogged = True
        made.watches[2].lost("[gloo/pair.cc:1] Connection closed by peer")  # returns: nothing is really ended here
        assert made.all_end(0, 2)
        assert [line.split(" has")[0] for rank, line in made.said if rank != 1] == ["process 1 on node1"]


def test_the_module_tells_for_whoever_fails() -> None:
    with desk(2) as (made, _):
        monitor.fail("a mistake")
        time.sleep(3 * GRACE)
        assert made.said == []
    monitor.fail("nobody watches any more")


# --- stopping together


@pytest.mark.parametrize("seed", range(4))
def test_all_stop_after_the_same_step(seed: int) -> None:
    """Through a real store, each process with a connection of its own, as fast as each likes."""
    random = Random(seed)
    server = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=60))
    made = Desk([server.clone() for _ in range(3)], Timeouts(heartbeat_timeout=30))
    paces = [random.uniform(0, 0.01) for _ in range(3)]
    asking = {random.randrange(3): random.randrange(1, 20) for _ in range(2)}
    stopped: dict[int, int] = {}
    steps = [0, 0, 0]

    def train(rank: int) -> None:
        for step in range(1, 100_000):
            time.sleep(paces[rank])
            while step > min(steps) + 20:  # no host gets further ahead of another one
                time.sleep(0.001)
            steps[rank] = step
            if step == asking.get(rank):
                made.watches[rank].request_stop(f"process {rank} was asked to")
            if made.watches[rank].stops_after(step):
                stopped[rank] = step
                return

    threads = [threading.Thread(target=train, args=(rank,), daemon=True) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for each in made.watches:
        each.close()
    assert sorted(stopped) == [0, 1, 2]
    assert len(set(stopped.values())) == 1
    assert made.said == []
