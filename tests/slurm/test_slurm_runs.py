"""Jobs that nothing disturbs."""

from pathlib import Path

import pytest
from cluster import GPUS, Cluster
from jobs import TINY, TINY_GAN, Checkout, Run, alone

pytestmark = pytest.mark.slurm

TOLERANCE = 1e-6  # after 240 steps of a GAN, from differences in the last bit of a float64


def test_cgan_on_two_nodes_is_equal_to_one_process(undisturbed: Run, tmp_path: Path) -> None:
    undisturbed.assert_same(alone(tmp_path / "alone", "configs/cgan.yaml", *TINY_GAN), tolerance=TOLERANCE)


def test_ae_on_two_nodes_is_equal_to_one_process(checkout: Checkout, tmp_path: Path) -> None:
    job = checkout.sbatch("--nodes=2", "slurm/ae.sh", *TINY, "--run.dir", "run")
    assert job.wait() == "COMPLETED", job.log
    checkout.run("run").assert_same(alone(tmp_path / "alone", "configs/ae.yaml", *TINY), tolerance=TOLERANCE)


def test_every_gpu_of_every_node_gets_a_process(machines: Cluster, checkout: Checkout) -> None:
    """There is nothing behind these GPUs; what the launcher starts for them is what is looked at."""
    assert GPUS >= 2
    job = checkout.sbatch("--nodes=2", "--gpus-per-node=2", "slurm/cgan.sh", *TINY_GAN, "--dry_run")
    assert job.wait() == "COMPLETED", job.log
    assert "12 images a step = 4 processes x 3 images" in job.log


def test_deepspeed_goes_through_the_same_launcher(checkout: Checkout) -> None:
    short = ["--train.steps", "4", "--evaluate.every", "4", "--train.precision", "fp32", "--run.dir", "run"]
    job = checkout.sbatch("--nodes=2", "slurm/cgan.sh", *TINY_GAN, *short, LAUNCH="deepspeed_zero2")
    assert job.wait() == "COMPLETED", job.log
    assert "12 images a step = 2 processes x 6 images" in job.log
    assert checkout.run("run").step == 4
