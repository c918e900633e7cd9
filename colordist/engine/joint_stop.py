"""How processes that run at their own pace agree on the step after which all of them stop, without a collective.

Process 0 proposes the next step that nobody is known to have passed. Each process answers, beside its training, how far
it had got when it heard of that; from then on it waits before it passes the step. Where somebody was past it already,
process 0 proposes the step that he waits before: that one everybody can still keep. So two rounds are enough.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Proposal:
    """Process 0's: to stop after a step."""

    number: int
    step: int
    reason: str
    agreed: bool = False


@dataclass(frozen=True)
class Vote:
    """A process's answer."""

    asked: str | None = None
    """Why it was asked to stop, if it was."""
    passed: int = -1
    """The last step that it has gone on after."""
    number: int = 0
    """The proposal that it had heard of by then."""


class JointStop:
    """One process's part in the agreement: its main thread asks, another one exchanges votes and proposals."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.asked: str | None = None
        self._passed = -1
        self._proposal: Proposal | None = None

    def request(self, reason: str) -> bool:
        """Ask for it. Returns whether that is new. From any thread, and in a signal handler: no lock is taken."""
        new = self.asked is None
        self.asked = self.asked or reason
        return new

    def stops_after(self, step: int) -> str | None:
        """Whether all processes stop after a step: why, or None. Waits while just that is being decided."""
        with self._changed:
            self._changed.wait_for(lambda: not self.undecided(step))
            if self._proposal is not None and step >= self._proposal.step:
                return self._proposal.reason
            self._passed = step
            return None

    def undecided(self, step: int) -> bool:
        """Whether it is just being decided if all stop after a step."""
        return self._proposal is not None and not self._proposal.agreed and step >= self._proposal.step

    @property
    def pending(self) -> bool:
        """Whether there is something to agree on."""
        proposal = self._proposal
        return (self.asked is not None) if proposal is None else not proposal.agreed

    def vote(self) -> Vote:
        """What this process tells process 0."""
        with self._changed:
            return Vote(self.asked, self._passed, self._proposal.number if self._proposal else 0)

    def hear(self, proposal: Proposal | None) -> None:
        """Take up what process 0 proposes."""
        with self._changed:
            self._proposal = proposal
            self._changed.notify_all()

    def lead(self, votes: Sequence[Vote]) -> None:
        """Process 0's part: propose, or decide, by the latest votes of all processes."""
        proposal, furthest = self._proposal, max(vote.passed for vote in votes)
        if proposal is None:
            if reason := next((vote.asked for vote in votes if vote.asked), None):
                self.hear(Proposal(1, furthest + 1, reason))
        elif not proposal.agreed and all(vote.number == proposal.number for vote in votes):
            if furthest < proposal.step:
                self.hear(replace(proposal, agreed=True))
            else:
                self.hear(Proposal(proposal.number + 1, furthest + 1, proposal.reason))

    @property
    def proposal(self) -> Proposal | None:
        """The latest one."""
        return self._proposal
