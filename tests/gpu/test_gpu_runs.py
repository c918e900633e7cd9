"""Whole runs on a GPU: the CPU's to rounding, bit-equal when killed and continued, and as launchers start them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from gpu_helpers import DEVICE, GPU, KINDS, Training, alone_on, double
from helpers import ROOT, TINY, clean_environment
from runs import assert_bit_equal, killed_run, learned, run

from colordist.run.folder import RunFolder

pytestmark = GPU
EXACT: dict[str, Any] = {"train__deterministic": True}


@pytest.mark.parametrize("kind", ["cgan", "cyclegan"])
def test_a_run_in_double_precision_is_that_of_the_cpu(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Losses, scores, and those of the baselines and the oracle."""
    found = {}
    for device in ("cpu", DEVICE):
        with alone_on(device, monkeypatch):
            found[device] = learned(run(tmp_path / device, **KINDS[kind] | {"train__precision": "fp64"}))
    assert len(found["cpu"]) == len(found[DEVICE]) > 4
    for line, expected in zip(found[DEVICE], found["cpu"], strict=True):
        assert line == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(
    ("kind", "precision"),
    [
        ("autoencoder", "fp32"),
        ("noise", "bf16"),
        ("cgan", "fp32"),
        ("cgan", "fp16"),
        ("everything", "bf16"),
        ("cyclegan", "fp32"),
        ("cyclegan", "fp16"),
    ],
)
def test_killed_and_continued_is_bit_equal(
    kind: str, precision: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = KINDS[kind] | EXACT | {"train__precision": precision, "model__width": 8}
    with alone_on(DEVICE, monkeypatch):
        straight = run(tmp_path / "straight", **settings)
        killed_run(tmp_path / "killed", monkeypatch, at=4, **settings)
        continued = run(tmp_path / "killed", **settings)
    assert_bit_equal(straight, continued)
    assert learned(straight) == learned(continued)


# --- as launchers start them


def launched(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a module of Python, in an environment that no launcher has touched."""
    command = (sys.executable, "-m", *command)
    return subprocess.run(command, capture_output=True, text=True, env=clean_environment(), timeout=100, check=False)


def test_under_accelerate_launch_killed_and_started_again_is_bit_equal(tmp_path: Path) -> None:
    settings = TINY | {"task.name": "cgan", "train.deterministic": True, "train.precision": "bf16"}
    jobs = [
        {"run": str(tmp_path / "straight"), "settings": settings},
        {"run": str(tmp_path / "killed"), "settings": settings, "deaths": [{"ranks": [0], "step": 4}]},
    ]
    file = tmp_path / "jobs.json"
    file.write_text(json.dumps(jobs))
    flags = ["--num_processes", "1", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    mortal = str(ROOT / "tests" / "distributed" / "mortal.py")
    first = launched("accelerate.commands.launch", *flags, mortal, str(file))
    assert first.returncode != 0
    second = launched("accelerate.commands.launch", *flags, mortal, str(file))
    assert second.returncode == 0, second.stderr
    assert file.with_suffix(".starts").read_text().count("\n") == 2
    assert_bit_equal(RunFolder(tmp_path / "straight"), RunFolder(tmp_path / "killed"))


def test_one_process_of_a_group_is_as_one_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Gradients go through DistributedDataParallel and NCCL, to nobody."""
    file = tmp_path / "found.json"
    script = str(Path(__file__).with_name("one_process.py"))
    flags = ["--standalone", "--local_addr", "127.0.0.1", "--nproc_per_node", "1"]
    done = launched("torch.distributed.run", *flags, script, str(file))
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    assert (found["device"], found["backend"]) == (DEVICE, "nccl")
    assert found["network"] == "DistributedDataParallel"
    with alone_on(DEVICE, monkeypatch):
        alone = Training(double("cgan"))
        for step, log in enumerate(found["logs"]):
            assert {**log, "pace/sync_bytes": 0.0} == pytest.approx(alone.step(step), rel=1e-9, abs=1e-12)
        assert found["logs"][0]["pace/sync_bytes"] > 0
