"""What a job's quick check finds, before anything is trained."""

from pathlib import Path

import pytest
from cluster import Cluster
from jobs import ROOT, TINY, Checkout, Job

pytestmark = pytest.mark.slurm


def refused(checkout: Checkout, *arguments: str, **environment: str) -> Job:
    """A job on node1 and node2 that doesn't get as far as training."""
    job = checkout.sbatch(
        "--nodes=2", "--nodelist=node[1-2]", "slurm/ae.sh", *TINY, "--run.dir", "run", *arguments, **environment
    )
    assert job.wait() == "FAILED"
    assert "training didn't begin" in job.log
    assert job.restarts == 0
    assert not (checkout.path / "run").exists()
    return job


def test_port_taken(machines: Cluster, checkout: Checkout) -> None:
    holder = "import socket, time; s = socket.create_server(('', 20999)); time.sleep(600)"
    other = checkout.sbatch("--nodelist=node1", f'--wrap=python -c "{holder}"')
    other.wait_for_start(0)
    job = refused(checkout, MASTER_PORT="20999")
    assert "port 20999 on node1 is taken" in job.log


def test_folder_not_shared(machines: Cluster, checkout: Checkout) -> None:
    job = refused(checkout, "--run.dir", "/dev/shm/run")
    assert "node2 sees another run folder: put it on a shared disk" in job.log


def test_node_with_another_version(machines: Cluster, checkout: Checkout, tmp_path: Path) -> None:
    file, other = ROOT / "colordist" / "data" / "sampler.py", tmp_path / "sampler.py"
    other.write_text(file.read_text() + "# changed\n")
    machines.run_on("node2", "mount", "--bind", str(other), str(file))
    try:
        job = refused(checkout)
    finally:
        machines.run_on("node2", "umount", str(file))
    found = next(line for line in job.log.splitlines() if line.startswith("NO  colordist"))
    assert "on node1" in found
    assert "on node2" in found
    assert found.endswith("install the same on every machine")
