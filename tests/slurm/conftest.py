"""One cluster for all tests in this folder; they are skipped, with the reason, where there can't be one."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster, why_not
from jobs import ROOT, STEPS, TINY_GAN, Checkout, Run


@pytest.fixture(scope="session")
def running_cluster() -> Iterator[Cluster]:
    if reason := why_not():
        pytest.skip(reason)
    parent = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # short: sockets lie in it
    cluster = Cluster(parent / "c")
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(parent)


@pytest.fixture
def cluster(running_cluster: Cluster) -> Iterator[Cluster]:
    """All nodes up and idle, before and after."""
    yield running_cluster
    running_cluster.all_idle()


@pytest.fixture
def machines(cluster: Cluster) -> Cluster:
    """The cluster, if its nodes are machines that can be cut off and lost."""
    if not cluster.has_machines:
        pytest.skip("nodes of their own need root and namespaces")
    return cluster


@pytest.fixture
def checkout(cluster: Cluster, tmp_path: Path) -> Checkout:
    return new_checkout(cluster, tmp_path / "checkout")


def new_checkout(cluster: Cluster, path: Path) -> Checkout:
    path.mkdir()
    for name in ("colordist", "configs", "launch", "slurm"):
        (path / name).symlink_to(ROOT / name)
    return Checkout(cluster, path)


@pytest.fixture(scope="session")
def undisturbed(running_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """cgan.sh on two nodes, from beginning to end: what every disturbed run must be equal to."""
    checkout = new_checkout(running_cluster, tmp_path_factory.mktemp("undisturbed") / "checkout")
    job = checkout.sbatch("--nodes=2", "slurm/cgan.sh", *TINY_GAN, "--run.dir", "run")
    assert job.wait() == "COMPLETED", job.log
    assert "12 images a step = 2 processes x 6 images" in job.log
    run = checkout.run("run")
    assert run.step == STEPS
    return run
