"""Monitoring of all ranks in background threads: ends the others when one dies, stalls or fails.

Each rank sends a heartbeat every second, through the store of the rendezvous. Rank 0 reads those of all ranks and
decides; the others read rank 0's. Each rank has two threads: one for the store, where it may block, and a watchdog,
which ends the process, as the main thread may be blocked in a collective.

The agreement on a common last step (``joint_stop``) is part of the heartbeats.
"""

import atexit
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol

from colordist.engine.failure_detector import (
    ALL_STOP,
    GRACE,
    FailureDetector,
    Heartbeat,
    State,
    Timeouts,
    fallback_reporter,
)
from colordist.engine.joint_stop import JointStop

_FALLBACK_REPORTER = "colordist/fallback-reporter"
_STOP_INTERVAL = 0.05  # seconds between two exchanges while a stop is being agreed on


class Store(Protocol):
    """The part of ``torch.distributed.Store`` used here."""

    def set(self, key: str, value: str, /) -> object:
        """Set a value."""
        ...

    def multi_get(self, keys: list[str], /) -> Sequence[bytes]:
        """Get values. Blocks until all keys are set."""
        ...


def _report(line: str) -> None:
    os.write(2, f"colordist: {line}\n".encode(errors="replace"))  # the main thread may hold the lock of sys.stderr


def _terminate() -> None:
    os._exit(1)  # the main thread may be blocked for ever


class Monitor:
    """One rank's side of the monitoring. Does nothing in a single process."""

    def __init__(
        self,
        store: Store | None = None,
        rank: int = 0,
        world_size: int = 1,
        host: str = "",
        timeouts: Timeouts | None = None,
        *,
        launchers_store: bool = False,
        connection_error: Callable[[], str] = str,
        report: Callable[[str], object] = _report,
        terminate: Callable[[], object] = _terminate,
    ) -> None:
        """store: a connection of its own; None for a single process.

        launchers_store: whether the store's server is in rank 0's launcher rather than in rank 0.
        connection_error: the error that the process group found in the background, empty for none: an asynchronous
        backend tells the main thread late, or never.
        report, terminate: print why the process ends, and end it.
        """
        self.rank, self.host, self.timeouts = rank, host, timeouts or Timeouts()
        self._store, self._launchers_store, self._report, self._terminate = store, launchers_store, report, terminate
        self._connection_error = connection_error
        self._peers = list(range(1, world_size)) if rank == 0 else [0]
        self._stop = JointStop()
        # Each of these is written by one thread only.
        self._state: State = "working"
        self._reason = self._stall_exempt = self._verdict = ""
        self._collectives = self._progress = self._step = self._sent = self._exchanges = 0
        self._fallback_reporter = 1  # known when all are present, and fixed: all ranks must agree on it
        self._heartbeats: dict[int, Heartbeat] = {}
        self._store_failed = False
        self._detector = FailureDetector(self.timeouts)
        self._wakeup: queue.SimpleQueue[None] = queue.SimpleQueue()  # reentrant: a signal handler may put into it
        self._closed = threading.Event()
        self._threads = [
            threading.Thread(target=self._exchange_heartbeats, daemon=True, name="monitor: heartbeats"),
            threading.Thread(target=self._watch, daemon=True, name="monitor: watchdog"),
        ]
        if store is not None:
            self._send(store)

    def start(self) -> None:
        """Wait until all ranks have constructed their monitors, then start the threads.

        Uses the store alone, so that what happens while the process group connects is noticed. Raises what the store
        raises after its timeout.
        """
        if self._store is None:
            return
        if self.rank == 0:
            others = map(Heartbeat.decode, self._store.multi_get([_key(rank) for rank in self._peers]))
            self._fallback_reporter = fallback_reporter([self.host, *(other.host for other in others)])
            self._store.set(_FALLBACK_REPORTER, str(self._fallback_reporter))
        else:
            self._fallback_reporter = int(self._store.multi_get([_FALLBACK_REPORTER])[0])
        _running.append(self)
        atexit.register(self.fail, "it ended early")  # no thread may use the store while the interpreter shuts down
        for thread in self._threads:
            thread.start()

    # --- called by the main thread

    def enter_collective(self) -> None:
        """Count a collective that begins."""
        self._collectives += 1

    def progress(self) -> None:
        """Report progress."""
        self._progress += 1

    def at_step(self, step: int) -> None:
        """Report the current step."""
        self._step = step

    @contextmanager
    def stall_exempt(self, work: str) -> Iterator[None]:
        """Context exempt from the stall timeout. work: its name."""
        self._stall_exempt = work
        try:
            yield
        finally:
            self._stall_exempt = ""

    def lost(self, reason: str, seconds: float | None = None) -> None:
        """Report a failed collective, and wait to be ended once the cause is known. Returns if it isn't found.

        seconds: to wait; by default so long that every cause is found.
        """
        if self._store is not None:
            self._reason, self._state = _one_line(reason), "lost"
            self._wakeup.put(None)
            self._closed.wait(self.timeouts.heartbeat_timeout + 3 * GRACE if seconds is None else seconds)

    def request_stop(self, reason: str) -> None:
        """Request that all ranks stop after the same step. From any thread, and in a signal handler."""
        if self._stop.request(reason):
            self._wakeup.put(None)

    def stops_after(self, step: int) -> str | None:
        """Why all ranks stop after a step, or None. Each rank must call it after each step."""
        if self._store is None:
            return self._stop.requested
        self.enter_collective()
        return self._stop.stops_after(step)

    def close(self) -> None:
        """Stop monitoring: this rank has finished."""
        self._leave("closed", "")

    def fail(self, reason: str) -> None:
        """Stop monitoring, and report an error of this rank, so that the others don't wait for it."""
        self._leave("failed", _one_line(reason))

    def _leave(self, state: State, reason: str) -> None:
        if self not in _running or self._closed.is_set():
            return
        self._reason, self._state = reason, state
        self._closed.set()
        self._wakeup.put(None)
        _running.remove(self)
        for thread in self._threads:
            thread.join(2 * self.timeouts.interval)
        if state == "failed" and self.rank == 0 and not self._launchers_store:
            time.sleep(1.5 * self.timeouts.interval)  # the store ends with this process: let the others read it first

    # --- the heartbeat thread

    def _exchange_heartbeats(self) -> None:
        assert self._store is not None
        try:
            while not self._closed.is_set():
                self._exchange(self._store)
                with suppress(queue.Empty):
                    self._wakeup.get(timeout=_STOP_INTERVAL if self._stop.pending else self.timeouts.interval)
            self._send(self._store)
        except Exception:  # the store's server has ended
            self._store_failed = True

    def _exchange(self, store: Store) -> None:
        """Send a heartbeat, and receive those of the peers."""
        own = self._send(store)
        received = store.multi_get([_key(rank) for rank in self._peers])
        heartbeats = dict(zip(self._peers, map(Heartbeat.decode, received), strict=True))
        if self.rank == 0:
            heartbeats[0] = own
            self._stop.lead([heartbeat.vote for heartbeat in heartbeats.values()])
        else:
            self._stop.receive(heartbeats[0].proposal)
        self._heartbeats = heartbeats
        self._exchanges += 1

    def _send(self, store: Store) -> Heartbeat:
        self._sent += 1
        state, reason = self._state, self._reason
        if state == "working" and (error := self._connection_error()):
            state, reason = "lost", _one_line(error)
        heartbeat = Heartbeat(
            count=self._sent,
            host=self.host,
            state=state,
            reason=reason,
            collectives=self._collectives,
            progress=self._progress,
            step=self._step,
            stall_exempt=self._stall_exempt,
            vote=self._stop.vote(),
            proposal=self._stop.proposal if self.rank == 0 else None,
            verdict=self._verdict,
        )
        store.set(_key(self.rank), heartbeat.encode())
        return heartbeat

    # --- the watchdog thread

    def _watch(self) -> None:
        interval, exchanges, since_exchange, last = self.timeouts.interval, 0, 0.0, time.monotonic()
        while not self._closed.wait(interval):
            now = time.monotonic()
            since_exchange += min(now - last, 2 * interval)  # bounded: this process may have been suspended
            last = now
            if self._exchanges > exchanges:
                exchanges = self._exchanges
                self._detector.observe(self._heartbeats, min(since_exchange, 2 * interval))
                since_exchange = 0.0
            if self._must_end(since_exchange) and not self._closed.is_set():
                self._closed.set()
                self._terminate()

    def _must_end(self, since_exchange: float) -> bool:
        """Whether this process must end. Reports the reason before, where this rank is the one to do so.

        since_exchange: seconds since the last exchange.
        """
        store_lost, rank_0 = self._store_lost(since_exchange), self._heartbeats.get(0, Heartbeat())
        if self.rank and (rank_0.verdict or self._detector.failed() or (store_lost and rank_0.state == "failed")):
            return True  # rank 0 has reported the reason
        if store_lost or self.rank:
            return self._rank_0_lost(store_lost or self._detector.dead())
        return self._ends_all(self._detector.verdict())

    def _ends_all(self, verdict: str | None) -> bool:
        """Report the verdict, if there is one, and send it to the others."""
        if verdict is None or self._closed.is_set():
            return False
        self._report(verdict)
        self._verdict = verdict
        self._wakeup.put(None)
        self._closed.wait(2.5 * self.timeouts.interval)  # the store may end with this process: let the others read it
        return True

    def _rank_0_lost(self, why: str | None) -> bool:
        """Report that rank 0 is lost, if it is, on the fallback reporter; the others give it time to."""
        if why is None or self._closed.is_set():
            return False
        if self.rank == self._fallback_reporter:
            self._report(why)
        else:
            self._closed.wait(GRACE)
        return True

    def _store_lost(self, since_exchange: float) -> str | None:
        """Why the store counts as lost, or None."""
        if self._store_failed and (self._state == "lost" or since_exchange > GRACE):
            how = "is gone"
        elif since_exchange > self.timeouts.heartbeat_timeout:
            how = f"has not responded for {self.timeouts.heartbeat_timeout:.0f} s"
        else:
            return None
        rank_0 = self._heartbeats.get(0, Heartbeat())
        who = f"{'the launcher of ' * self._launchers_store}process 0 on {rank_0.host}"
        return f"{who} {how} (it was at step {rank_0.step}): {ALL_STOP}"


_running: list[Monitor] = []


def fail(reason: str) -> None:
    """Report an error of this process to the other ranks, if there are any."""
    for monitor in list(_running):
        monitor.fail(reason)


def _key(rank: int) -> str:
    return f"colordist/heartbeat/{rank}"


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]
