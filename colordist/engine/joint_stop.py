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
    """Rank 0's proposal to stop after a step. A later one has a later step."""

    step: int
    reason: str
    agreed: bool = False


@dataclass(frozen=True)
class Vote:
    """One rank's vote on the latest proposal that it has received, if any."""

    requested: str | None = None
    """Reason of a stop requested on this rank, if any."""
    passed: int = -1
    """The last step after which it continued."""
    proposal: Proposal | None = None


class JointStop:
    """One rank's side of the protocol: the main thread asks, another one exchanges votes and proposals."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._vote = Vote()
        self.requested: str | None = None
        """Reason of the first request. Written without a lock, as a signal handler may do it."""

    def stops_after(self, step: int) -> str | None:
        """Why all ranks stop after a step, or None. Waits while that step is undecided."""
        with self._changed:
            self._changed.wait_for(lambda: not self.undecided(step))
            proposal = self._vote.proposal
            if proposal is not None and step >= proposal.step:
                return proposal.reason
            self._vote = replace(self._vote, passed=step)
            return None

    def undecided(self, step: int) -> bool:
        """Whether a proposal to stop after this step, or an earlier one, isn't agreed yet."""
        proposal = self._vote.proposal
        return proposal is not None and not proposal.agreed and step >= proposal.step

    def pending(self) -> bool:
        """Whether a stop is requested or proposed, but not agreed yet."""
        proposal = self._vote.proposal
        return self.requested is not None if proposal is None else not proposal.agreed

    def vote(self) -> Vote:
        """This rank's vote."""
        return replace(self._vote, requested=self.requested)

    def receive(self, proposal: Proposal | None) -> None:
        """Store rank 0's latest proposal."""
        with self._changed:
            self._vote = replace(self._vote, proposal=proposal)
            self._changed.notify_all()

    def lead(self, votes: Sequence[Vote]) -> None:
        """Propose or decide on rank 0, given the latest votes of all ranks."""
        proposal, furthest = self._vote.proposal, max(vote.passed for vote in votes)
        if proposal is None:
            if reason := next((vote.requested for vote in votes if vote.requested), None):
                self.receive(Proposal(furthest + 1, reason))
        elif not proposal.agreed and all(vote.proposal == proposal for vote in votes):
            self.receive(
                replace(proposal, agreed=True) if furthest < proposal.step else replace(proposal, step=furthest + 1)
            )
