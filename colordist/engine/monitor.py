"""Monitoring of all ranks in background threads: ends the others when one dies, stalls or fails.

A single process is monitored, too, if it trains: it may hang in a write to a disk that doesn't respond.

Each rank sends a heartbeat every second, through the store of the rendezvous. Rank 0 reads those of all ranks and
decides; the others read rank 0's. Of a process on its own machine a rank knows that it has ended without waiting for
its heartbeats. Each rank has two threads: one for the store, where it may block (a store's timeout
doesn't end a call to a frozen server), and a watchdog, which ends the process, as the main thread may be blocked in a
collective.

The agreement on a common last step (``joint_stop``) is part of the heartbeats.
"""

import atexit
import os
import pickle
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from colordist.engine.failure_detector import ALL_STOP, GRACE, FailureDetector, Heartbeat, Timeouts, fallback_reporter
from colordist.engine.joint_stop import JointStop
from colordist.errors import one_line
from colordist.processes import UNKNOWN, Process
from colordist.secrets import redacted

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

_FALLBACK_REPORTER = "colordist/fallback-reporter"
_LENGTH = 300  # characters of a reason
_URGENT_INTERVAL = 0.05  # seconds between two exchanges while a stop is being agreed on, or a connection is lost


def _report(line: str) -> None:
    data = f"colordist: {redacted(line)}\n".encode(errors="replace")
    with suppress(OSError):  # nobody may be listening any more, and the process must end all the same
        os.write(2, data)  # the main thread may hold the lock of sys.stderr


def _terminate() -> None:
    os._exit(1)  # the main thread may be blocked for ever


class Monitor:
    """One rank's side of the monitoring. Does nothing without a store."""

    def __init__(
        self,
        store: "Store | None" = None,
        rank: int = 0,
        world_size: int = 1,
        process: Process = UNKNOWN,
        timeouts: Timeouts | None = None,
        *,
        launchers_store: bool = False,
        connection_error: Callable[[], str] = str,
        report: Callable[[str], object] = _report,
        terminate: Callable[[], object] = _terminate,
    ) -> None:
        """store: a connection of its own; within one process any store, or None for no monitoring.

        process: this one, by which others on its machine know that it has ended.
        launchers_store: whether the store's server is in rank 0's launcher rather than in rank 0.
        connection_error: the error that the process group found in the background, empty for none: an asynchronous
        backend tells the main thread late, or never.
        report, terminate: print why the process ends, and end it.
        """
        self.rank, self.timeouts = rank, timeouts or Timeouts()
        self._is_alone, self._other_count, self._parent = world_size == 1, world_size - 1, os.getppid()
        self._store, self._launchers_store, self._report, self._terminate = store, launchers_store, report, terminate
        self._connection_error = connection_error
        self._own = Heartbeat(process)  # each field is written by one thread; of progress an update may be lost
        self._peers = [_key(peer) for peer in range(world_size if rank == 0 else 1)]
        self._received: dict[int, Heartbeat] = {}  # since the watchdog last looked
        self._ended: set[int] = set()  # ranks whose processes had ended before their heartbeats were received
        self._exempt_work, self._store_failed = "", False
        self._detector = FailureDetector(self.timeouts)
        self._stop = JointStop()
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
        received = self._receive(self._store)
        self._detector.observe(received, 0.0)
        if self.rank == 0:
            hosts = [each.process.host for each in received.values()]
            self._store.set(_FALLBACK_REPORTER, str(fallback_reporter(hosts)))
        self._fallback_reporter = int(self._store.get(_FALLBACK_REPORTER))
        _running.append(self)
        atexit.register(self.fail, "it ended early")  # no thread may use the store while the interpreter shuts down
        for thread in self._threads:
            thread.start()

    # --- called by the main thread

    def enter_collective(self) -> None:
        """Count a collective that begins."""
        self._own.collectives += 1

    def progress(self) -> None:
        """Report progress."""
        self._own.progress += 1

    def at_step(self, step: int) -> None:
        """Report the current step."""
        self._own.step = step

    @contextmanager
    def stall_exempt(self, work: str) -> Iterator[None]:
        """Context exempt from the stall timeout. work: its name."""
        self._exempt_work = work
        try:
            yield
        finally:
            self._exempt_work = ""

    def lost(self, reason: str, seconds: float | None = None) -> None:
        """Report a failed collective, and wait to be ended once the cause is known. Returns if it isn't found.

        seconds: to wait; by default so long that every cause is found.
        """
        if self._store is not None:
            self._own.reason, self._own.state = one_line(reason, _LENGTH), "lost"
            self._wakeup.put(None)
            self._closed.wait(self.timeouts.heartbeat_timeout + 3 * GRACE if seconds is None else seconds)

    def request_stop(self, reason: str) -> None:
        """Request that all ranks stop after the same step. From any thread, and in a signal handler."""
        if self._stop.requested is None:
            self._stop.requested = reason
            self._wakeup.put(None)

    def stops_after(self, step: int) -> str | None:
        """Why all ranks stop after a step, or None. Each rank must call it after each step."""
        if self._is_alone:
            return self._stop.requested
        self.enter_collective()
        return self._stop.stops_after(step)

    def close(self) -> None:
        """Stop monitoring: this rank has finished."""
        self._leave("closed", "")

    def fail(self, reason: str) -> None:
        """Stop monitoring, and report an error of this rank, so that the others don't wait for it."""
        self._leave("failed", reason)

    def _leave(self, state: Literal["closed", "failed"], reason: str) -> None:
        if self not in _running or self._closed.is_set():
            return
        self._own.reason, self._own.state = one_line(reason, _LENGTH), state
        self._closed.set()
        self._wakeup.put(None)
        _running.remove(self)
        for thread in self._threads:
            thread.join(2 * self.timeouts.interval)
        if state == "failed" and self.rank == 0 and not self._launchers_store and not self._is_alone:
            time.sleep(1.5 * self.timeouts.interval)  # the store ends with this process: let the others read it first

    # --- the heartbeat thread

    def _exchange_heartbeats(self) -> None:
        assert self._store is not None
        received: dict[int, Heartbeat] = {}
        before: set[int] = set()
        try:
            while not self._closed.is_set():
                self._send(self._store)
                ended = {rank for rank, each in received.items() if each.process.has_ended()}
                received = self._receive(self._store)
                if self.rank == 0:
                    self._stop.lead([heartbeat.vote for heartbeat in received.values()])
                else:
                    self._stop.receive(received[0].vote.proposal)
                self._received = received
                # Twice: what a process sent last, as why it failed, is received after it has ended.
                self._ended, before = ended & before, ended
                urgent = self._stop.pending() or (self.rank == 0 and self._own.state == "lost")
                with suppress(queue.Empty):
                    self._wakeup.get(timeout=_URGENT_INTERVAL if urgent else self.timeouts.interval)
            self._send(self._store)
        except Exception:  # the store's server has ended
            self._store_failed = True

    def _send(self, store: "Store") -> None:
        self._own.count += 1
        if self._exempt_work:
            self.progress()
        self._own.vote = self._stop.vote()
        heartbeat = self._own
        if heartbeat.state == "working" and (error := self._connection_error()):
            heartbeat = replace(heartbeat, state="lost", reason=one_line(error, _LENGTH))
        store.set(_key(self.rank), pickle.dumps(heartbeat))  # type: ignore[arg-type]  # bytes, too

    def _receive(self, store: "Store") -> dict[int, Heartbeat]:
        return dict(enumerate(map(pickle.loads, store.multi_get(self._peers))))

    # --- the watchdog thread

    def _watch(self) -> None:
        interval, since_exchange, last = self.timeouts.interval, 0.0, time.monotonic()
        while not self._closed.wait(interval / 4):
            now = time.monotonic()
            since_exchange += min(now - last, 2 * interval)  # bounded: this process may have been suspended
            last = now
            ended = self._ended  # first: not later than what is received
            received, self._received = self._received, {}
            if received:
                self._detector.observe(received, min(since_exchange, 2 * interval), ended)
                since_exchange = 0.0
            must_end = self._is_stalled() if self._is_alone else self._must_end(self._store_lost(since_exchange))
            if must_end and not self._closed.is_set():
                self._closed.set()
                self._terminate()

    def _is_stalled(self) -> bool:
        """Whether the only process hangs, which is reported: no other can be lost, and nobody else would end it."""
        why = self._detector.stalled()
        if why is not None:
            self._report(why)
        return why is not None

    def _must_end(self, store_lost: str | None) -> bool:
        """Whether this process must end. Reports why before, where this rank is the one to do so.

        store_lost: why the store counts as lost, if it does.
        """
        rank_0 = self._detector.peers[0].heartbeat
        if self.rank and (rank_0.all_stop or self._detector.failed() or (store_lost and rank_0.state == "failed")):
            return True  # rank 0 has reported the reason
        why = store_lost or (self._detector.dead() if self.rank else self._detector.verdict())
        if why is None or self._closed.is_set():
            return False
        reports = self.rank == (self._fallback_reporter if self.rank or store_lost else 0)
        if reports:
            self._report(why)
        self._own.all_stop = True
        self._wakeup.put(None)
        if self._launcher_ended() or sum(peer.ended for peer in self._detector.peers.values()) == self._other_count:
            return True  # nobody is left to read it, and the same command waits for the lock that this one may hold
        if reports:
            self._closed.wait(2.5 * self.timeouts.interval)  # let the others read it: the store may end with it
        else:
            self._closed.wait(GRACE)  # let the fallback reporter report, before the launcher ends it
        return True

    def _launcher_ended(self) -> bool:
        """Whether the launcher that has the store is known to have ended: nobody reads from it, or ends the others."""
        return self._launchers_store and self._store_failed and (self.rank == 0 or os.getppid() != self._parent)

    def _store_lost(self, since_exchange: float) -> str | None:
        """Why the store counts as lost, or None. since_exchange: seconds since the last exchange."""
        if self._store_failed and (self._own.state == "lost" or self._launcher_ended() or since_exchange > GRACE):
            how = "is gone"
        elif since_exchange > self.timeouts.heartbeat_timeout:
            how = f"has not responded for {self.timeouts.heartbeat_timeout:.0f} s"
        else:
            return None
        rank_0 = self._detector.peers[0].heartbeat
        who = f"{'the launcher of ' * self._launchers_store}process 0 on {rank_0.process.host}"
        return f"{who} {how} (it was at step {rank_0.step}): {ALL_STOP}"


_running: list[Monitor] = []


def fail(reason: str) -> None:
    """Report an error of this process to the other ranks, if there are any."""
    for monitor in list(_running):
        monitor.fail(reason)


def _key(rank: int) -> str:
    return f"colordist/heartbeat/{rank}"
