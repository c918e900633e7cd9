"""Who is missing, by the signs of life that processes give: no threads, no clock of its own, no network."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from colordist.engine.joint_stop import Proposal, Vote

State = Literal["working", "lost", "failed", "closed"]
ALL_STOP = "all stop; the same command continues"
GRACE = 5.0
"""Seconds in which what has happened to one process may turn out to happen to all."""


@dataclass(frozen=True)
class Timeouts:
    """How long processes wait for one another, in seconds."""

    heartbeat_timeout: float = 30.0
    """Without a sign of life a process counts as lost."""
    stall_timeout: float = 600.0
    """So long may one thing take while the others wait for it."""

    @property
    def interval(self) -> float:
        """Between two signs of life."""
        return min(1.0, self.heartbeat_timeout / 6)


@dataclass(frozen=True)
class Heartbeat:
    """A sign of life: what a process tells of itself."""

    count: int = 0
    host: str = "?"
    state: State = "working"
    """Lost: something that all do together has failed. Failed: it has an error of its own to tell. Closed: done."""
    reason: str = ""
    place: int = 0
    """How many of the things that all do together it has begun: whoever is behind is waited for."""
    marks: int = 0
    """Grows with its progress."""
    step: int = 0
    stall_exempt: str = ""
    """What it does that may take any time."""
    vote: Vote = field(default_factory=Vote)
    proposal: Proposal | None = None
    """Process 0's."""
    verdict: str = ""
    """Process 0's: why all stop at once."""
    fallback_reporter: int = 1
    """Process 0's: who speaks, should it be the one that is missing."""

    def encode(self) -> str:
        """As text."""
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, text: bytes) -> "Heartbeat":
        """From text."""
        values = json.loads(text)
        proposal = values.pop("proposal")
        return cls(**values | {"vote": Vote(**values["vote"]), "proposal": Proposal(**proposal) if proposal else None})


@dataclass
class _Peer:
    """What is known of a process. Times are in seconds that were listened to."""

    heartbeat: Heartbeat
    silent: float = 0.0
    stuck: float = 0.0
    amiss: float = 0.0
    """For how long it has been in another state than working."""

    def listen(self, heartbeat: Heartbeat, elapsed: float) -> None:
        last = self.heartbeat
        self.silent = 0.0 if heartbeat.count != last.count else self.silent + elapsed
        same = (heartbeat.place, heartbeat.marks, heartbeat.stall_exempt) == (last.place, last.marks, last.stall_exempt)
        self.stuck = self.stuck + elapsed if same and not heartbeat.stall_exempt else 0.0
        self.amiss = self.amiss + elapsed if heartbeat.state == last.state != "working" else 0.0
        self.heartbeat = heartbeat


@dataclass
class FailureDetector:
    """Listens to processes, and finds who the others wait for in vain."""

    timeouts: Timeouts
    peers: dict[int, _Peer] = field(default_factory=dict)

    def listen(self, heartbeats: Mapping[int, Heartbeat], elapsed: float) -> None:
        """Take the latest beats. elapsed: seconds since the ones before that count; not those of this process's sleep.

        Where a whole job is suspended and resumed, nobody has been silent.
        """
        for rank, heartbeat in heartbeats.items():
            self.peers.setdefault(rank, _Peer(heartbeat)).listen(heartbeat, elapsed)

    def verdict(self) -> str | None:
        """Why all must stop; None as long as they needn't. For whoever listens to all processes."""
        return self.failed() or self.silent() or self.stuck() or self.lost()

    def failed(self) -> str | None:
        """A process has an error of its own. If it is everybody's, everybody tells it within the grace."""
        bound = 0.0 if self._connection_broke() else GRACE
        ranks = [rank for rank, peer in self._open() if peer.heartbeat.state == "failed" and peer.amiss >= bound]
        return f"{self._who(ranks)} failed ({self.peers[ranks[0]].heartbeat.reason}): all stop" if ranks else None

    def silent(self) -> str | None:
        """A process is no longer heard of. Once a connection has broken, a shorter silence proves it."""
        bound = (
            min(GRACE, self.timeouts.heartbeat_timeout) if self._connection_broke() else self.timeouts.heartbeat_timeout
        )
        listened = {rank: peer for rank, peer in self._open() if peer.heartbeat.state != "failed"}
        if not any(peer.silent > bound for peer in listened.values()):
            return None
        # Those of one machine fall silent together, but are not found to be at the same time.
        ranks = [rank for rank, peer in listened.items() if peer.silent > bound / 2]
        return f"{self._who(ranks)} not been heard of for {bound:.0f} s {self._where(ranks)}: {ALL_STOP}"

    def stuck(self) -> str | None:
        """A process lives but doesn't get on, and the others wait for it."""
        last = min((peer.heartbeat.place for _, peer in self._open()), default=0)
        behind = {rank: peer for rank, peer in self._open() if peer.heartbeat.place == last}
        if not behind or any(peer.stuck <= self.timeouts.stall_timeout for peer in behind.values()):
            return None
        everybody = len(behind) == len(list(self._open()))
        found = "no process has made any" if everybody else f"{self._who(list(behind))} made no"
        return f"{found} progress for {self.timeouts.stall_timeout:.0f} s {self._where(list(behind))}: {ALL_STOP}"

    def lost(self) -> str | None:
        """A process can't reach another one, and all of them live."""
        found = [(rank, peer) for rank, peer in self._open() if peer.heartbeat.state == "lost"]
        ranks = [rank for rank, peer in found if peer.amiss > self.timeouts.heartbeat_timeout]
        return f"{self._who(ranks)} lost touch ({self.peers[ranks[0]].heartbeat.reason}): {ALL_STOP}" if ranks else None

    def fallback_reporter(self) -> int:
        """Who speaks if process 0 is missing: the first process heard of lately, on another machine if there is one."""
        home = self.peers[0].heartbeat.host
        living = [rank for rank, peer in self._open() if rank and peer.silent <= 3 * self.timeouts.interval]
        elsewhere = [rank for rank in living if self.peers[rank].heartbeat.host != home]
        return min(elsewhere or living, default=1)

    def _connection_broke(self) -> bool:
        return any(peer.heartbeat.state == "lost" for _, peer in self._open())

    def _open(self) -> Iterable[tuple[int, _Peer]]:
        """Those that have not taken their leave."""
        return ((rank, peer) for rank, peer in sorted(self.peers.items()) if peer.heartbeat.state != "closed")

    def _who(self, ranks: list[int]) -> str:
        first, others = ranks[0], len(ranks) - 1
        also = f" and {others} other{'s' * (others > 1)}" if others else ""
        return f"process {first} on {self.peers[first].heartbeat.host}{also} {'have' if others else 'has'}"

    def _where(self, ranks: list[int]) -> str:
        step = self.peers[ranks[0]].heartbeat.step
        return f"({'it was' if len(ranks) == 1 else 'they were'} at step {step})"
