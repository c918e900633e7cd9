"""Jobs of the test cluster, and the runs that they make."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from cluster import Cluster
from runs import everything, learned, tensors

from colordist.run.folder import RunFolder, numbered

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
OVER = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED")
TIMEOUT = 400.0  # seconds; a job takes half a minute where nothing else runs

# Small, with everything on that could make processes differ. Ten seconds on two nodes, for they talk slowly.
STEPS = 120
TINY = [
    *("--data.source", "synthetic", "--data.image_size", "16", "--data.train_images", "40", "--data.test_images", "19"),
    *("--model.width", "4", "--model.depth", "2"),
    *("--train.global_batch_size", "12", "--train.steps", str(STEPS), "--train.precision", "fp64"),
    *("--log.every", "10", "--evaluate.every", "60", "--checkpoint.every", "20"),
]
TINY_GAN = [*TINY, "--discriminator.width", "4", "--discriminator.depth", "2", "--task.warmup_steps", "1"]


@dataclass(frozen=True)
class Checkout:
    """A folder like the repository's, to submit jobs from."""

    cluster: Cluster
    path: Path

    def sbatch(self, *arguments: str, **environment: str) -> "Job":
        """Submit a job; its log lies in the checkout."""
        output = self.shell("sbatch", "--parsable", *arguments, check=True, **environment)
        return Job(self, output.split(";")[0])

    def shell(self, *command: str, check: bool = True, **environment: str) -> str:
        """A command's output, run in the checkout beside the controller."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "SBATCH", "MASTER_"))}
        clean["SLURM_CONF"] = os.environ["SLURM_CONF"]
        if not self.cluster.has_machines:  # names of nodes mean nothing there
            clean["MASTER_ADDR"] = "127.0.0.1"
        clean["PATH"] = f"{Path(sys.executable).parent}:{clean['PATH']}"
        return self.cluster.run(*command, environment=clean | environment, folder=self.path, check=check)

    def run(self, name: str) -> "Run":
        """A run folder in it."""
        return Run(self.path / name)


@dataclass(frozen=True)
class Job:
    """A job, or an element of an array: 7_2."""

    checkout: Checkout
    id: str

    def facts(self) -> dict[str, str]:
        """What the controller says about it."""
        output = self.checkout.cluster.run("scontrol", "show", "job", "--oneliner", self.id)
        return dict(word.split("=", 1) for word in output.split() if "=" in word)

    @property
    def restarts(self) -> int:
        """How often it began again."""
        return int(self.facts()["Restarts"])

    @property
    def nodes(self) -> list[str]:
        """Where it runs."""
        return self.checkout.cluster.run("scontrol", "show", "hostnames", self.facts()["NodeList"]).split()

    @property
    def log(self) -> str:
        """All that it said."""
        files = sorted(self.checkout.path.glob(f"slurm-*-{self.id.replace('_', '-')}.out"))
        return "\n".join(file.read_text(errors="replace") for file in files)

    def wait(self) -> str:
        """Its state when it is over."""

        def over() -> str | None:
            state = self.facts()["JobState"]
            return state if state in OVER else None

        return until(over, f"end of job {self.id}", lambda: f"{self.facts()}\n{self.log}")

    def wait_for_start(self, number: int) -> None:
        """Wait until it runs for the first time (0) or has begun again so often."""

        def runs() -> bool:
            facts = self.facts()
            return facts["JobState"] == "RUNNING" and int(facts["Restarts"]) == number

        until(runs, f"start {number} of job {self.id}", lambda: f"{self.facts()}\n{self.log}")


@dataclass(frozen=True)
class Run:
    """A run folder."""

    path: Path

    @property
    def records(self) -> list[dict[str, Any]]:
        """metrics.jsonl without what depends on the clock or on the number of processes."""
        return learned(RunFolder(self.path))

    @property
    def step(self) -> int:
        """The last one that was logged."""
        return max((int(line["step"]) for line in RunFolder(self.path).records()), default=0)

    def wait_for_step(self, step: int, job: Job) -> None:
        """Wait until a job got that far."""
        until(lambda: self.step >= step, f"step {step} in {self.path}", lambda: f"{job.facts()}\n{job.log}")

    @property
    def checkpoints(self) -> list[str]:
        """All that lies where checkpoints are."""
        return sorted(path.name for path in (self.path / "checkpoints").iterdir())

    @property
    def fence(self) -> int:
        """The fencing number of the last writer, from the last checkpoint."""
        newest = numbered(self.path / "checkpoints")[-1]
        return int(json.loads((newest / "manifest.json").read_text())["fence"])

    @property
    def state(self) -> dict[str, torch.Tensor]:
        """Every tensor of the last checkpoint, by its path in it."""
        return tensors(everything(RunFolder(self.path)))

    def assert_same(self, other: "Run", *, tolerance: float = 0.0) -> None:
        """To the end, and along the way."""
        assert [line.keys() for line in self.records] == [line.keys() for line in other.records]
        for found, expected in zip(self.records, other.records, strict=True):
            assert found == (pytest.approx(expected, rel=tolerance, abs=tolerance) if tolerance else expected)
        state, expected_state = self.state, other.state
        assert state.keys() == expected_state.keys()
        for name, tensor in state.items():
            torch.testing.assert_close(tensor, expected_state[name], rtol=tolerance, atol=tolerance, msg=name)


def alone(run: Path, config: str, *arguments: str) -> Run:
    """The same training in one process, without SLURM."""
    command = ["taskset", "--cpu-list", "0", sys.executable, "-m", "colordist.train"]  # one core: one thread, as there
    command += ["--config", config, *arguments, "--run.dir", str(run)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode == 0, done.stderr
    return Run(run)


def until(look: Callable[[], T | None], what: str, explain: Callable[[], str]) -> T:
    """Wait until ``look`` returns something, and return that."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        if found := look():
            return found
        assert time.monotonic() < deadline, f"waited for {what}\n{explain()}"
        time.sleep(0.3)
