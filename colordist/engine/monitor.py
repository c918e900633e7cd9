"""What sees that a process dies, stops or hangs, and ends the others: beside the training, without a collective.

Each process gives a sign of life every second, through the store that all of them met at. Process 0 listens to all of
them and judges; the others listen to process 0. Two threads do that on each process: one talks to the store, and may
get stuck there; the other one counts the seconds, and ends the process, whose main thread may be stuck as well.

Stopping at an agreed step (``joint_stop``) travels the same way.
"""

import atexit
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol

from colordist.engine.failure_detector import ALL_STOP, GRACE, FailureDetector, Heartbeat, State, Timeouts
from colordist.engine.joint_stop import JointStop

_HURRY = 0.05  # seconds between two exchanges while something is being agreed on


class Store(Protocol):
    """What processes leave messages in: ``torch.distributed.Store``, as far as it is needed."""

    def set(self, key: str, value: str, /) -> object:
        """Leave a message."""
        ...

    def multi_get(self, keys: list[str], /) -> Sequence[bytes]:
        """Read messages. Waits until there are such."""
        ...


def _say(line: str) -> None:
    os.write(2, f"colordist: {line}\n".encode(errors="replace"))  # the main thread may be holding the streams' locks


def _end() -> None:
    os._exit(1)  # the main thread may never come back


class Monitor:
    """One process's part in watching over all of them. A single process is watched by nobody."""

    def __init__(
        self,
        store: Store | None = None,
        rank: int = 0,
        world_size: int = 1,
        host: str = "",
        timeouts: Timeouts | None = None,
        *,
        launchers_store: bool = False,
        say: Callable[[str], object] = _say,
        end: Callable[[], object] = _end,
    ) -> None:
        """store: for this watch alone; None for a single process.

        launchers_store: whether the store lives in process 0's launcher rather than in process 0.
        say, end: how to tell why the process ends, and how to end it.
        """
        self.rank, self.host, self.timeouts = rank, host, timeouts or Timeouts()
        self._store, self._launchers_store, self._say, self._end = store, launchers_store, say, end
        self._listened_to = list(range(1, world_size)) if rank == 0 else [0]
        self._stop = JointStop()
        # Each of these is written by one thread only.
        self._state: State = "working"
        self._reason = self._stall_exempt = self._verdict = ""
        self._place = self._marks = self._step = self._told = self._exchanges = 0
        self._fallback_reporter = 1
        self._heard: dict[int, Heartbeat] = {}
        self._broken = False
        self._detector = FailureDetector(self.timeouts)
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()  # reentrant, so a signal handler may ring it
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._talk, daemon=True, name="watch: talk"),
            threading.Thread(target=self._count, daemon=True, name="watch: count"),
        ]
        if store is not None:
            self._tell(store)

    def start(self) -> None:
        """Begin to watch. All processes must have made theirs."""
        if self._store is None:
            return
        _running.append(self)
        atexit.register(self.fail, "it ended early")  # also because no thread may be in the store at the very end
        for thread in self._threads:
            thread.start()

    # --- for the main thread

    def enter(self) -> None:
        """Begin something that all processes do, in the same order."""
        self._place += 1

    def progress(self) -> None:
        """Show that this process gets on."""
        self._marks += 1

    def at_step(self, step: int) -> None:
        """Tell which step this process is in."""
        self._step = step

    @contextmanager
    def stall_exempt(self, work: str) -> Iterator[None]:
        """Something that may take any time, while the others wait."""
        self._stall_exempt = work
        try:
            yield
        finally:
            self._stall_exempt = ""

    def lost(self, reason: str) -> None:
        """Something that all do together has failed here: the process is ended once it is known who is missing.

        Returns only if that can't be found out.
        """
        if self._store is not None:
            self._reason, self._state = _one_line(reason), "lost"
            self._bell.put(None)
            self._over.wait(self.timeouts.heartbeat_timeout + 3 * GRACE)

    def request_stop(self, reason: str) -> None:
        """Ask for all processes to stop after the same step. From any thread, and in a signal handler."""
        if self._stop.request(reason):
            self._bell.put(None)

    def stops_after(self, step: int) -> str | None:
        """Whether all processes stop after a step: why, or None. Each of them must ask, after each step."""
        if self._store is None:
            return self._stop.asked
        self.enter()
        return self._stop.stops_after(step)

    def close(self) -> None:
        """Stop watching: all processes are done."""
        self._leave("closed", "")

    def fail(self, reason: str) -> None:
        """Stop watching: this process has an error of its own to tell, and is not to be waited for."""
        self._leave("failed", _one_line(reason))

    def _leave(self, state: State, reason: str) -> None:
        if self not in _running or self._over.is_set():
            return
        self._reason, self._state = reason, state
        self._over.set()
        self._bell.put(None)
        _running.remove(self)
        for thread in self._threads:
            thread.join(2 * self.timeouts.interval)
        if state == "failed" and self.rank == 0 and not self._launchers_store:
            time.sleep(1.5 * self.timeouts.interval)  # the store ends with this process: let the others read first

    # --- the thread that talks to the store

    def _talk(self) -> None:
        assert self._store is not None
        try:
            while not self._over.is_set():
                self._exchange(self._store)
                with suppress(queue.Empty):
                    self._bell.get(timeout=_HURRY if self._stop.pending else self.timeouts.interval)
            self._tell(self._store)
        except Exception:  # the process that holds the store has ended
            self._broken = True

    def _exchange(self, store: Store) -> None:
        """Give a sign of life, and listen to those of others."""
        own = self._tell(store)
        told = store.multi_get([_key(rank) for rank in self._listened_to])
        heartbeats = dict(zip(self._listened_to, map(Heartbeat.decode, told), strict=True))
        if self.rank == 0:
            heartbeats[0] = own
            self._stop.lead([heartbeat.vote for heartbeat in heartbeats.values()])
        else:
            self._stop.hear(heartbeats[0].proposal)
        self._heard = heartbeats
        self._exchanges += 1

    def _tell(self, store: Store) -> Heartbeat:
        self._told += 1
        heartbeat = Heartbeat(
            count=self._told,
            host=self.host,
            state=self._state,
            reason=self._reason,
            place=self._place,
            marks=self._marks,
            step=self._step,
            stall_exempt=self._stall_exempt,
            vote=self._stop.vote(),
            proposal=self._stop.proposal if self.rank == 0 else None,
            verdict=self._verdict,
            fallback_reporter=self._fallback_reporter,
        )
        store.set(_key(self.rank), heartbeat.encode())
        return heartbeat

    # --- the thread that counts the seconds

    def _count(self) -> None:
        interval, exchanges, deaf, last = self.timeouts.interval, 0, 0.0, time.monotonic()
        while not self._over.wait(interval):
            now = time.monotonic()
            deaf, last = deaf + min(now - last, 2 * interval), now  # no more, should this process have been suspended
            if self._exchanges > exchanges:
                exchanges = self._exchanges
                self._detector.listen(self._heard, min(deaf, 2 * interval))
                deaf = 0.0
            if self._conclude(deaf) and not self._over.is_set():
                self._over.set()
                self._end()

    def _conclude(self, deaf: float) -> bool:
        """Whether this process must end; whoever is to speak has spoken then.

        deaf: seconds since the last exchange.
        """
        missing, first = self._store_is_missing(deaf), self._heard.get(0, Heartbeat())
        if self.rank and (first.verdict or self._detector.failed() or (missing and first.state == "failed")):
            return True  # process 0 has told why
        if missing or self.rank:
            return self._is_orphaned(missing or self._detector.silent())
        self._fallback_reporter = self._detector.fallback_reporter() if self._exchanges else 1
        return self._ends_all(self._detector.verdict())

    def _ends_all(self, verdict: str | None) -> bool:
        """Tell why all must end, first here, then to the others."""
        if verdict is None or self._over.is_set():
            return False
        self._say(verdict)
        self._verdict = verdict
        self._bell.put(None)
        self._over.wait(2.5 * self.timeouts.interval)  # let them read it before the store ends, if it is here
        return True

    def _is_orphaned(self, why: str | None) -> bool:
        """Process 0 is missing: one of the others tells it; they give it the time to."""
        if why is None or self._over.is_set():
            return False
        fallback_reporter = self._heard[0].fallback_reporter if self.rank and self._exchanges else 1
        if self.rank == fallback_reporter:
            self._say(why)
        else:
            self._over.wait(GRACE)
        return True

    def _store_is_missing(self, deaf: float) -> str | None:
        """Why the store no longer answers; None as long as it does."""
        if self._broken and (self._state == "lost" or deaf > GRACE):
            how = "is gone"
        elif deaf > self.timeouts.heartbeat_timeout:
            how = f"has not been heard of for {self.timeouts.heartbeat_timeout:.0f} s"
        else:
            return None
        home = self._heard.get(0, Heartbeat())
        who = f"{'the launcher of ' * self._launchers_store}process 0 on {home.host}"
        return f"{who} {how} (it was at step {home.step}): {ALL_STOP}"


_running: list[Monitor] = []


def fail(reason: str) -> None:
    """Tell the others that this process has an error of its own, if there are others."""
    for monitor in list(_running):
        monitor.fail(reason)


def _key(rank: int) -> str:
    return f"colordist/watch/{rank}"


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]
