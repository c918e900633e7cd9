"""Two processes work as one, and no launch trains side by side while looking fine."""

from pathlib import Path

import pytest
import torch

from colordist.run.folder import numbered
from launch import TINY, records, train

pytestmark = pytest.mark.dist


def state(run: Path) -> dict[str, torch.Tensor]:
    """Every tensor of the newest checkpoint by its path in it."""
    newest = numbered(run / "checkpoints")[-1] / "state.pt"
    tensors: dict[str, torch.Tensor] = {}

    def collect(value: object, name: str) -> None:
        if isinstance(value, torch.Tensor):
            tensors[name] = value
        elif isinstance(value, dict):
            for key, part in value.items():
                collect(part, f"{name}/{key}")

    collect(torch.load(newest, weights_only=True), "")
    return tensors


def test_two_processes_are_equal_to_one(tmp_path: Path) -> None:
    """Same samples, losses, scores and weights: two processes with micro-batches, one without, in float64."""
    for processes, micro in ((1, "12"), (2, "4")):
        where = ["--run.dir", str(tmp_path / str(processes)), "--train.micro_batch_size", micro]
        done = train(*TINY, *where, processes=processes)
        assert done.returncode == 0, done.stderr

    alone, together = records(tmp_path / "1"), records(tmp_path / "2")
    assert [line.keys() for line in alone] == [line.keys() for line in together]
    for one, two in zip(alone, together, strict=True):
        assert two == pytest.approx(one, rel=1e-9, abs=1e-12)

    weights = state(tmp_path / "1")
    for name, tensor in state(tmp_path / "2").items():
        torch.testing.assert_close(tensor, weights[name], rtol=1e-9, atol=1e-11, msg=name)


@pytest.mark.parametrize("flags", [(), ("--cpu",)])
def test_a_launcher_that_starts_too_few_processes_is_refused(flags: tuple[str, ...], tmp_path: Path) -> None:
    done = train(*TINY, "--run.dir", str(tmp_path / "run"), processes=2, flags=flags)
    assert done.returncode != 0
    assert done.stderr.count("started only one: add --multi_gpu") == 1
    assert not (tmp_path / "run").exists()


def test_a_batch_that_does_not_divide_is_told_once_and_first(tmp_path: Path) -> None:
    done = train(*TINY, "--run.dir", str(tmp_path / "run"), "--train.global_batch_size", "13", processes=2)
    assert done.returncode != 0
    mistakes = [line for line in done.stderr.splitlines() if line.startswith("colordist:")]
    assert mistakes == [
        "colordist: train.global_batch_size is 13, which 2 processes can't share equally: try 12 or 14, or one of 1 "
        "processes"
    ]
    assert done.stderr.index("colordist:") < done.stderr.index("Traceback")
    assert not (tmp_path / "run").exists()


def test_data_that_one_process_cannot_find_stops_all_with_one_line(tmp_path: Path) -> None:
    nowhere = ["--data.source", "folder", "--data.root", str(tmp_path / "nowhere")]
    done = train(*TINY, *nowhere, "--run.dir", str(tmp_path / "run"), processes=2)
    assert done.returncode != 0
    assert done.stderr.count("colordist:") == 1
    assert str(tmp_path / "nowhere") in done.stderr
    assert not (tmp_path / "run").exists()
