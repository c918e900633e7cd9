"""Two processes on the null device, through NCCL and DDP: a whole run, and all-reduces that overlap with backward."""

from pathlib import Path

import pytest
from helpers import ROOT, config_with
from null_ranks import TINY, ranks, records

from colordist.training.build_task import build_task

pytestmark = [pytest.mark.null]

BACKENDS = {
    "nccl": {"TORCH_DIST_USE_NCCL2": "0"},  # PyTorch's default up to 2.14
    "nccl2": {"TORCH_DIST_USE_NCCL2": "1"},  # from 2.15 on
}
"""Environment variables that choose one of PyTorch's two process groups on NCCL."""
COMPUTE = "(nil)"  # PyTorch's default stream


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_whole_run_on_two_processes(backend: str, library: Path, tmp_path: Path) -> None:
    with ranks(library, tmp_path, TINY, variables=BACKENDS[backend]) as group:
        assert [rank.code() for rank in group] == [0, 0], "\n".join(rank.text for rank in group)
    run = tmp_path / "run"
    steps = [line["step"] for line in records(tmp_path)]
    assert steps == [0, 0, 2, 3, 4, 6, 6]  # references; evaluated at 0, 3 and 6; logged at 2, 4 and 6
    assert (run / "finished").exists()
    for folder in ("checkpoints/step-000003", "checkpoints/step-000006", "snapshots/step-000006"):
        assert (run / folder).is_dir()
    task = build_task(config_with(TINY))
    parameters = sum(each.numel() for network in task.networks.values() for each in network.module.parameters())
    assert records(tmp_path)[-2]["pace/sync_bytes"] == 4 * parameters


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_reduces_overlap_with_backward(backend: str, library: Path, tmp_path: Path) -> None:
    """After the first bucket of gradients the compute stream goes on, and waits once backward is through."""
    settings = {"config": ROOT / "configs" / "variants.yaml", "model.width": 48, "data.train_images": 64}
    settings |= {"data.test_images": 8, "task.warmup_steps": 1, "log.every": 100}
    log = tmp_path / "log"
    with ranks(library, tmp_path, settings, program=["overlap_worker", str(log)], variables=BACKENDS[backend]) as group:
        assert [rank.code() for rank in group] == [0, 0], "\n".join(rank.text for rank in group)
    lines = log.read_text().splitlines()
    first, *_, last = [number for number, line in enumerate(lines) if line.startswith("collective")]
    assert lines[first:last].count(f"launch {COMPUTE}") > 50  # several buckets
    assert not [line for line in lines[first:last] if line.startswith(f"wait {COMPUTE}")]
    assert [line for line in lines[last:] if line.startswith(f"wait {COMPUTE}")]


@pytest.mark.parametrize(("stage", "precision", "devices"), [("1", "fp32", 1), ("2", "bf16", 2), ("3", "fp32", 2)])
def test_deepspeed_trains_evaluates_and_saves(
    stage: str, precision: str, devices: int, library: Path, tmp_path: Path
) -> None:
    """devices: that each process sees; one: each its own."""
    variables = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": stage}
    variables |= {"CUDA_VISIBLE_DEVICES": ",".join(map(str, range(devices)))}
    with ranks(library, tmp_path, TINY | {"train.precision": precision}, devices=devices, variables=variables) as group:
        assert [rank.code() for rank in group] == [0, 0], "\n".join(rank.text for rank in group)
    assert [line["step"] for line in records(tmp_path)] == [0, 0, 2, 3, 4, 6, 6]
    for folder in ("checkpoints/step-000006", "snapshots/step-000006"):
        assert (tmp_path / "run" / folder).is_dir()
