"""Jobs that are asked to stop: by the clock, by a job that matters more, by a person."""

import re

import pytest
from jobs import TINY_GAN, Checkout, Job, Run

pytestmark = pytest.mark.slurm


def start(checkout: Checkout, *options: str) -> tuple[Job, Run]:
    """Train on two nodes, and get some way."""
    job = checkout.sbatch("--nodes=2", *options, "slurm/cgan.sh", *TINY_GAN, "--run.dir", "run")
    run = checkout.run("run")
    run.wait_for_step(20, job)
    return job, run


def warn(job: Job) -> None:
    """What ``--signal=B:USR1@300`` sends, now."""
    job.checkout.cluster.run("scancel", "--batch", "--signal=USR1", job.id)


def test_a_job_whose_time_is_up_continues_where_it_stopped(checkout: Checkout, undisturbed: Run) -> None:
    job, run = start(checkout)
    warn(job)
    job.wait_for_start(1)
    assert job.wait() == "COMPLETED", job.log
    assert job.restarts == 1  # and not again when finished
    assert "stopped, " in job.log
    assert "to be requeued" in job.log
    run.assert_same(undisturbed)


@pytest.mark.slow
def test_the_real_time_limit(checkout: Checkout) -> None:
    """SLURM looks twice a minute, so the warning, twenty seconds before the end, comes somewhere on the way."""
    endless = ["--train.steps", "100000", "--run.dir", "run"]
    job = checkout.sbatch("--nodes=2", "--time=1", "--signal=B:USR1@20", "slurm/cgan.sh", *TINY_GAN, *endless)
    job.wait_for_start(2)
    first, second = (int(step) for step in re.findall(r'stopped, {"step": (\d+)', job.log))
    assert 0 < first < second


def test_a_job_that_makes_room_for_another_continues(checkout: Checkout, undisturbed: Run) -> None:
    job, run = start(checkout)
    urgent = checkout.sbatch("--partition=urgent", "--nodes=3", "--exclusive", "--wrap=sleep 1")
    assert urgent.wait() == "COMPLETED"
    assert job.wait() == "COMPLETED", job.log
    assert job.restarts == 1
    assert '"reason": "SIGTERM"' in job.log
    run.assert_same(undisturbed)


def test_a_job_that_is_cancelled_stays_cancelled(checkout: Checkout) -> None:
    job, run = start(checkout)
    checkout.cluster.run("scancel", job.id)
    assert job.wait() == "CANCELLED"
    assert "ended by SLURM" in job.log
    assert job.restarts == 0
    assert (run.path / "stopped").exists()  # with a checkpoint: it may be continued
