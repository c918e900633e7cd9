"""Nodes that are lost, and some that come back."""

import pytest
from cluster import Cluster
from jobs import STEPS, TINY_GAN, Checkout, Run, until

pytestmark = pytest.mark.slurm


@pytest.mark.parametrize("which", ["worker", "batch"])
def test_a_node_without_power(which: str, machines: Cluster, checkout: Checkout, undisturbed: Run) -> None:
    """The job runs again on what is left. batch: the node where its script ran, and the writer of checkpoints."""
    job = checkout.sbatch("--nodes=2", "slurm/cgan.sh", *TINY_GAN, "--run.dir", "run")
    run = checkout.run("run")
    run.wait_for_step(40, job)
    lost = job.nodes[which == "worker"]
    machines.power_off(lost)
    job.wait_for_start(1)
    assert job.wait() == "COMPLETED", job.log
    assert lost not in job.nodes
    run.assert_same(undisturbed)


def test_a_node_that_comes_back_spoils_nothing(machines: Cluster, checkout: Checkout) -> None:
    """Cut off while it writes; healed while the job, which runs again elsewhere, writes into the same folder."""
    steps = 4 * STEPS  # one process needs no slow network
    job = checkout.sbatch("--nodes=1", "slurm/cgan.sh", *TINY_GAN, "--train.steps", str(steps), "--run.dir", "run")
    run = checkout.run("run")
    run.wait_for_step(40, job)
    (first,) = job.nodes
    machines.cut_off(first)
    job.wait_for_start(1)
    (second,) = job.nodes
    assert second != first
    until(lambda: fence(run) > 1, "second writer", lambda: job.log)
    machines.reconnect(first)
    for line in ("has taken over the run", "start 0 is over: the job began again without it"):  # the first's last words
        until(lambda line=line: line in job.log, line, lambda: job.log)  # type: ignore[misc]
    machines.heal(first)
    assert job.wait() == "COMPLETED", job.log
    assert job.restarts == 1
    assert run.step == steps
    assert run.fence == 2
    assert not [name for name in run.checkpoints if "tmp" in name or "damaged" in name]


def fence(run: Run) -> int:
    """The highest fencing number."""
    return max(int(file.stem) for file in (run.path / "lock").glob("*.json"))
