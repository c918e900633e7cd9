"""Failure detection from the heartbeats of all ranks: pure logic, without threads, clock or network."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

from colordist.engine.joint_stop import Proposal, Vote

State = Literal["working", "lost", "failed", "closed"]
ALL_STOP = "all stop; the same command continues"
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


@dataclass(frozen=True)
class Heartbeat:
    """A rank's heartbeat, with its state."""

    count: int = 0
    host: str = "?"
    state: State = "working"
    """`lost`: a collective failed on it. `failed`: it raised an error itself. `closed`: it has finished."""
    reason: str = ""
    collectives: int = 0
    """Number of collectives that it has entered: the others wait for the ranks with the fewest."""
    progress: int = 0
    """Progress counter."""
    step: int = 0
    stall_exempt: str = ""
    """Current work that is exempt from the stall timeout, if any."""
    vote: Vote = field(default_factory=Vote)
    proposal: Proposal | None = None
    """From rank 0 only."""
    verdict: str = ""
    """From rank 0 only: why all ranks must stop at once."""

    def encode(self) -> str:
        """Encode as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, text: bytes) -> "Heartbeat":
        """Decode from JSON."""
        values = json.loads(text)
        proposal = values.pop("proposal")
        return cls(**values | {"vote": Vote(**values["vote"]), "proposal": Proposal(**proposal) if proposal else None})


@dataclass
class _Peer:
    """A rank's last heartbeat, and seconds of observation since it changed."""

    heartbeat: Heartbeat
    since_heartbeat: float = 0.0
    since_progress: float = 0.0
    since_error: float = 0.0
    """Since it entered another state than working."""

    def observe(self, heartbeat: Heartbeat, elapsed: float) -> None:
        last = self.heartbeat
        self.since_heartbeat = 0.0 if heartbeat.count != last.count else self.since_heartbeat + elapsed
        stalled = not heartbeat.stall_exempt and _progress(heartbeat) == _progress(last)
        self.since_progress = self.since_progress + elapsed if stalled else 0.0
        self.since_error = self.since_error + elapsed if heartbeat.state == last.state != "working" else 0.0
        self.heartbeat = heartbeat


def _progress(heartbeat: Heartbeat) -> tuple[int, int, str]:
    return heartbeat.collectives, heartbeat.progress, heartbeat.stall_exempt


@dataclass
class FailureDetector:
    """Finds ranks that are dead, stalled, failed or disconnected. Its findings are error messages, None for none."""

    timeouts: Timeouts
    peers: dict[int, _Peer] = field(default_factory=dict)

    def observe(self, heartbeats: Mapping[int, Heartbeat], elapsed: float) -> None:
        """Record the latest heartbeats. elapsed: seconds since the previous ones, without those of a suspension.

        So a job that is suspended and resumed as a whole isn't taken for dead.
        """
        for rank, heartbeat in heartbeats.items():
            self.peers.setdefault(rank, _Peer(heartbeat)).observe(heartbeat, elapsed)

    def verdict(self) -> str | None:
        """Why all ranks must stop, or None. On rank 0, which receives all heartbeats."""
        return self.failed() or self.dead() or self.stalled() or self.disconnected()

    def failed(self) -> str | None:
        """Find ranks that raised an error. One that occurs on all ranks within the grace period is reported by each."""
        bound = 0.0 if self._connection_broke() else GRACE
        ranks = [rank for rank, peer in self._open() if peer.heartbeat.state == "failed" and peer.since_error >= bound]
        return f"{self._who(ranks)} failed ({self.peers[ranks[0]].heartbeat.reason}): all stop" if ranks else None

    def dead(self) -> str | None:
        """Find ranks without a heartbeat. After a broken connection a shorter timeout is enough."""
        bound = self.timeouts.heartbeat_timeout
        if self._connection_broke():
            bound = min(GRACE, bound)
        candidates = {rank: peer for rank, peer in self._open() if peer.heartbeat.state != "failed"}
        if not any(peer.since_heartbeat > bound for peer in candidates.values()):
            return None
        # Ranks of a machine that dies reach the timeout one after the other: half of it is enough to name them, too.
        ranks = [rank for rank, peer in candidates.items() if peer.since_heartbeat > bound / 2]
        return f"{self._who(ranks)} not responded for {bound:.0f} s {self._where(ranks)}: {ALL_STOP}"

    def stalled(self) -> str | None:
        """Find ranks that send heartbeats but make no progress, while the others wait for them."""
        last = min((peer.heartbeat.collectives for _, peer in self._open()), default=0)
        behind = {rank: peer for rank, peer in self._open() if peer.heartbeat.collectives == last}
        if not behind or any(peer.since_progress <= self.timeouts.stall_timeout for peer in behind.values()):
            return None
        all_ranks = len(behind) == len(list(self._open()))
        found = "no process has made any" if all_ranks else f"{self._who(list(behind))} made no"
        return f"{found} progress for {self.timeouts.stall_timeout:.0f} s {self._where(list(behind))}: {ALL_STOP}"

    def disconnected(self) -> str | None:
        """Find ranks whose collectives failed although all ranks are alive."""
        found = [(rank, peer) for rank, peer in self._open() if peer.heartbeat.state == "lost"]
        ranks = [rank for rank, peer in found if peer.since_error > self.timeouts.heartbeat_timeout]
        if not ranks:
            return None
        return f"{self._who(ranks)} lost a connection ({self.peers[ranks[0]].heartbeat.reason}): {ALL_STOP}"

    def _connection_broke(self) -> bool:
        return any(peer.heartbeat.state == "lost" for _, peer in self._open())

    def _open(self) -> Iterable[tuple[int, _Peer]]:
        """Ranks that haven't finished."""
        return ((rank, peer) for rank, peer in sorted(self.peers.items()) if peer.heartbeat.state != "closed")

    def _who(self, ranks: list[int]) -> str:
        first, others = ranks[0], len(ranks) - 1
        also = f" and {others} other{'s' * (others > 1)}" if others else ""
        return f"process {first} on {self.peers[first].heartbeat.host}{also} {'have' if others else 'has'}"

    def _where(self, ranks: list[int]) -> str:
        step = self.peers[ranks[0]].heartbeat.step
        return f"({'it was' if len(ranks) == 1 else 'they were'} at step {step})"


def fallback_reporter(hosts: Sequence[str]) -> int:
    """The rank that reports if rank 0 dies: the lowest, on another machine if there is one. hosts: by rank."""
    return next((rank for rank, host in enumerate(hosts) if host != hosts[0]), 1)
