"""Agreement on the step after which all ranks stop, without a collective.

Rank 0 proposes the first step that no rank is known to have passed. Each rank votes, in a background thread, with the
last step that it had passed when the proposal arrived; from then on it waits before it passes the proposed step. If a
rank had passed it already, rank 0 proposes the step which that rank waits at, and which all can keep. So two rounds
are enough.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Proposal:
    """Rank 0's proposal to stop after a step."""

    number: int
    step: int
    reason: str
    agreed: bool = False


@dataclass(frozen=True)
class Vote:
    """One rank's vote."""

    requested: str | None = None
    """Reason of a stop requested on this rank, if any."""
    passed: int = -1
    """The last step after which it continued."""
    number: int = 0
    """Number of the latest proposal that it had received by then; 0 for none."""


class JointStop:
    """One rank's side of the protocol: the main thread asks, another one exchanges votes and proposals."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.requested: str | None = None
        self._passed = -1
        self._proposal: Proposal | None = None

    def request(self, reason: str) -> bool:
        """Request a stop. Returns False if one was requested before. Takes no lock: safe in a signal handler."""
        new = self.requested is None
        self.requested = self.requested or reason
        return new

    def stops_after(self, step: int) -> str | None:
        """Why all ranks stop after a step, or None. Waits while that step is undecided."""
        with self._changed:
            self._changed.wait_for(lambda: not self.undecided(step))
            if self._proposal is not None and step >= self._proposal.step:
                return self._proposal.reason
            self._passed = step
            return None

    def undecided(self, step: int) -> bool:
        """Whether a proposal to stop after this step, or an earlier one, isn't agreed yet."""
        return self._proposal is not None and not self._proposal.agreed and step >= self._proposal.step

    @property
    def pending(self) -> bool:
        """Whether a stop is requested or proposed, but not agreed yet."""
        proposal = self._proposal
        return (self.requested is not None) if proposal is None else not proposal.agreed

    def vote(self) -> Vote:
        """This rank's vote."""
        with self._changed:
            return Vote(self.requested, self._passed, self._proposal.number if self._proposal else 0)

    def receive(self, proposal: Proposal | None) -> None:
        """Store rank 0's latest proposal."""
        with self._changed:
            self._proposal = proposal
            self._changed.notify_all()

    def lead(self, votes: Sequence[Vote]) -> None:
        """Propose or decide on rank 0, given the latest votes of all ranks."""
        proposal, furthest = self._proposal, max(vote.passed for vote in votes)
        if proposal is None:
            if reason := next((vote.requested for vote in votes if vote.requested), None):
                self.receive(Proposal(1, furthest + 1, reason))
        elif not proposal.agreed and all(vote.number == proposal.number for vote in votes):
            if furthest < proposal.step:
                self.receive(replace(proposal, agreed=True))
            else:
                self.receive(Proposal(proposal.number + 1, furthest + 1, proposal.reason))

    @property
    def proposal(self) -> Proposal | None:
        """The latest proposal."""
        return self._proposal
