"""Failure detection from the heartbeats of all ranks: pure logic, without threads, clock or network."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from colordist.engine.joint_stop import Vote
from colordist.processes import Process

ALL_STOP = "all stop; the same command continues"
_CONTINUES = "The same command continues; a longer --run.stall_timeout waits longer"
GRACE = 5.0
"""Seconds within which an error on one rank may turn out to occur on all."""


@dataclass(frozen=True)
class Timeouts:
    """Timeouts, in seconds."""

    heartbeat_timeout: float = 30.0
    """A rank without a heartbeat for so long counts as dead."""
    stall_timeout: float = 600.0
    """A rank that the others wait for, without progress for so long, counts as stalled."""

    @property
    def interval(self) -> float:
        """Time between two heartbeats."""
        return min(1.0, self.heartbeat_timeout / 6)


@dataclass
class Heartbeat:
    """A rank's heartbeat, with its state."""

    process: Process
    count: int = 0
    state: Literal["working", "lost", "failed", "closed"] = "working"
    """`lost`: a collective failed on it. `failed`: it raised an error itself. `closed`: it has finished."""
    reason: str = ""
    collectives: int = 0
    """Number of collectives that it has entered: the others wait for the ranks with the fewest."""
    progress: int = 0
    """Progress counter. During work that is exempt from the stall timeout it counts heartbeats, too."""
    step: int = 0
    vote: Vote = field(default_factory=Vote)
    all_stop: bool = False
    """Read from rank 0 only: it has reported why all ranks must stop at once."""


@dataclass
class _Peer:
    """A rank's last heartbeat, and seconds of observation since its count, progress or state changed."""

    heartbeat: Heartbeat
    silent: float = 0.0
    idle: float = 0.0
    same_state: float = 0.0
    ended: bool = False

    def observe(self, new: Heartbeat, elapsed: float) -> None:
        last, self.heartbeat = self.heartbeat, new
        progressed = (new.collectives, new.progress) != (last.collectives, last.progress)
        self.silent = 0.0 if new.count != last.count else self.silent + elapsed
        self.idle = 0.0 if progressed else self.idle + elapsed
        self.same_state = 0.0 if new.state != last.state else self.same_state + elapsed


class FailureDetector:
    """Finds ranks that are dead, stalled, failed or disconnected. Its findings are error messages, None for none."""

    def __init__(self, timeouts: Timeouts) -> None:
        self.timeouts = timeouts
        self.peers: dict[int, _Peer] = {}

    def observe(self, heartbeats: Mapping[int, Heartbeat], elapsed: float, ended: Collection[int] = ()) -> None:
        """Record the latest heartbeats, by rank in ascending order.

        elapsed: seconds since the previous ones, without those of a suspension: so a job that is suspended and resumed
        as a whole isn't taken for dead. ended: ranks whose processes had ended before the heartbeats were read.
        """
        for rank, heartbeat in heartbeats.items():
            peer = self.peers.setdefault(rank, _Peer(heartbeat))
            peer.observe(heartbeat, elapsed)
            peer.ended = rank in ended

    def verdict(self) -> str | None:
        """Why all ranks must stop, or None. On rank 0, which receives all heartbeats."""
        return self.failed() or self.dead() or self.stalled() or self.disconnected()

    def failed(self) -> str | None:
        """Find ranks that raised an error. One that occurs on all ranks within the grace period is reported by each."""
        bound = 0.0 if self._in("lost") else GRACE
        ranks = [rank for rank, peer in self._in("failed").items() if peer.same_state >= bound]
        return f"{self._have(ranks)} failed ({self.peers[ranks[0]].heartbeat.reason}): all stop" if ranks else None

    def dead(self) -> str | None:
        """Find ranks that have ended, or send no heartbeat. After a broken connection a shorter timeout is enough."""
        timeout = self.timeouts.heartbeat_timeout
        bound = min(GRACE, timeout) if self._in("lost") else timeout
        peers = self._in("working", "lost")
        if ended := [rank for rank, peer in peers.items() if peer.ended]:
            return f"{self._have(ended)} ended {self._were(ended)}: {ALL_STOP}"
        if not any(peer.silent > bound for peer in peers.values()):
            return None
        # Ranks of a machine that dies reach the timeout one after the other: half of it is enough to name them, too.
        ranks = [rank for rank, peer in peers.items() if peer.silent > bound / 2]
        return f"{self._have(ranks)} not responded for {bound:.0f} s {self._were(ranks)}: {ALL_STOP}"

    def stalled(self) -> str | None:
        """Find ranks that send heartbeats but make no progress, while the others wait for them."""
        peers, timeout = self._in("working", "lost", "failed"), self.timeouts.stall_timeout
        fewest = min((peer.heartbeat.collectives for peer in peers.values()), default=0)
        ranks = [rank for rank, peer in peers.items() if peer.heartbeat.collectives == fewest]
        if not ranks or any(self.peers[rank].idle <= timeout for rank in ranks):
            return None
        if len(self.peers) == 1:
            return f"no progress for {timeout:.0f} s {self._were(ranks)}: does a disk hang? {_CONTINUES}"
        found = "no process has made any" if len(ranks) == len(peers) else f"{self._have(ranks)} made no"
        return f"{found} progress for {timeout:.0f} s {self._were(ranks)}: {ALL_STOP}"

    def disconnected(self) -> str | None:
        """Find ranks whose collectives failed although all ranks are alive."""
        ranks = [rank for rank, peer in self._in("lost").items() if peer.same_state > self.timeouts.heartbeat_timeout]
        if not ranks:
            return None
        return f"{self._have(ranks)} lost a connection ({self.peers[ranks[0]].heartbeat.reason}): {ALL_STOP}"

    def _in(self, *states: str) -> dict[int, _Peer]:
        return {rank: peer for rank, peer in self.peers.items() if peer.heartbeat.state in states}

    def _have(self, ranks: Sequence[int]) -> str:
        host, others = self.peers[ranks[0]].heartbeat.process.host, len(ranks) - 1
        also = f" and {others} other{'s' * (others > 1)}" if others else ""
        return f"process {ranks[0]} on {host}{also} {'have' if others else 'has'}"

    def _were(self, ranks: Sequence[int]) -> str:
        return f"({'it was' if len(ranks) == 1 else 'they were'} at step {self.peers[ranks[0]].heartbeat.step})"


def fallback_reporter(hosts: Sequence[str]) -> int:
    """The rank that reports if rank 0 dies: the lowest, on another machine if there is one. hosts: by rank."""
    return next((rank for rank, host in enumerate(hosts) if host != hosts[0]), 1)
