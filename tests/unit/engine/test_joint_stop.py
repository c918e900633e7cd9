"""Processes that run at their own pace stop after the same step, and none waits for ever."""

from hypothesis import given
from hypothesis import strategies as st

from colordist.engine.joint_stop import JointStop, Proposal, Vote

LAST = 12


class Processes:
    """Some processes, as a schedule moves them: what is told arrives late, and mains run ahead of one another."""

    def __init__(self, count: int, lead: int) -> None:
        """lead: how many steps a process may be ahead of the slowest: 1 where each step has a meeting of all."""
        self.parts = [JointStop() for _ in range(count)]
        self.steps = [0] * count
        self.stopped: list[int | None] = [None] * count
        self.lead = lead
        self.votes = [part.vote() for part in self.parts]
        self.proposal: Proposal | None = None

    def train(self, process: int) -> None:
        """A step of a main thread, if it can make one."""
        step = self.steps[process] + 1
        ahead = step - min(self.steps) > self.lead
        if self.stopped[process] is not None or step > LAST or ahead:
            return
        part = self.parts[process]
        if step < LAST:
            if part.undecided(step):
                return  # stops_after would wait
            if part.stops_after(step):
                self.stopped[process] = step
        self.steps[process] = step

    def send(self, process: int) -> None:
        self.votes[process] = self.parts[process].vote()

    def hear(self, process: int) -> None:
        if process == 0:
            self.parts[0].lead([self.parts[0].vote(), *self.votes[1:]])
            self.proposal = self.parts[0].vote().proposal
        else:
            self.parts[process].receive(self.proposal)

    def run(self) -> None:
        """All go on until nothing changes any more."""
        for _ in range(LAST * 8):
            for process in range(len(self.parts)):
                self.send(process)
                self.hear(process)
                self.train(process)

    def ends(self) -> set[int]:
        """After which steps they ended."""
        assert all(stop is not None or step == LAST for stop, step in zip(self.stopped, self.steps, strict=True)), (
            "one waits for ever"
        )
        return set(self.steps)


moves = st.lists(st.tuples(st.sampled_from(["train", "train", "send", "hear", "ask"]), st.integers(0, 3)), max_size=120)


@given(count=st.integers(2, 4), lead=st.sampled_from([1, 2, 100]), schedule=moves)
def test_all_stop_after_the_same_step(count: int, lead: int, schedule: list[tuple[str, int]]) -> None:
    processes = Processes(count, lead)
    asked = False
    for move, which in schedule:
        process = which % count
        if move == "ask":
            processes.parts[process].requested = f"{process}"
            asked = True
        else:
            getattr(processes, move)(process)
    before = max(processes.steps)
    processes.run()
    assert len(processes.ends()) == 1
    if not asked:
        assert processes.ends() == {LAST}
    elif lead == 1:  # two rounds, in each of which nobody gets further than the next step
        assert processes.ends().pop() <= min(before + 4, LAST)
    reasons = {vote.proposal.reason for vote in map(JointStop.vote, processes.parts) if vote.proposal}
    assert len(reasons) <= 1


def test_whoever_is_past_the_proposed_step_gets_a_later_one() -> None:
    first, second = JointStop(), JointStop()
    for step in (1, 2, 3, 4):
        assert second.stops_after(step) is None  # far ahead
    first.requested = "SIGTERM"
    assert first.pending()
    first.lead([first.vote(), Vote(passed=1)])  # as process 0 knows it
    assert first.vote().proposal == Proposal(2, "SIGTERM")
    second.receive(first.vote().proposal)
    assert second.undecided(5)  # it waits at its next step, to be found there
    first.lead([first.vote(), second.vote()])
    assert first.vote().proposal == Proposal(5, "SIGTERM")
    second.receive(first.vote().proposal)
    first.lead([first.vote(), second.vote()])
    assert first.vote().proposal == Proposal(5, "SIGTERM", agreed=True)
    assert not first.pending()
    second.receive(first.vote().proposal)
    assert second.stops_after(5) == "SIGTERM"
    assert [first.stops_after(step) for step in (1, 2, 3, 4, 5)] == [None] * 4 + ["SIGTERM"]
