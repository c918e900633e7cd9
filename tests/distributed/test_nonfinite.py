"""Inf or NaN loss on one of two ranks: both skip that update, count it, and stay bit-equal."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from launch import TINY_GAN, work

pytestmark = [pytest.mark.dist, pytest.mark.slow]

COMMON: dict[str, Any] = TINY_GAN | {
    **{"data.train_images": 12, "data.test_images": 4, "model.depth": 1, "discriminator.depth": 1},
    **{"train.global_batch_size": 4, "train.steps": 8, "train.precision": "fp32"},
    **{"log.every": 4, "evaluate.every": 8, "checkpoint.every": 8},
}
NAN = {"network": "generator", "steps": [5], "rank": 1, "value": "nan"}
INF = {"network": "discriminator", "steps": [2, 3], "rank": 0, "value": "inf"}
MANY = {"network": "generator", "steps": [2, 3, 4, 5], "rank": 1, "value": "nan"}
JOBS: dict[str, dict[str, Any]] = {
    "nan": {"plant": NAN, "settings": COMMON | {"train.micro_batch_size": 1}},
    "nan-line-by-line": {"plant": NAN, "settings": COMMON | {"log.every": 1}},
    "inf": {"plant": INF, "settings": COMMON},
    "allowed": {"plant": MANY, "settings": COMMON | {"train.skip_limit": 4}},
    "limit": {"plant": MANY, "settings": COMMON | {"train.skip_limit": 3, "log.every": 3}},
    "stop": {"plant": INF, "settings": COMMON | {"train.nonfinite": "stop"}},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of all runs, on two processes."""
    root = tmp_path_factory.mktemp("nonfinite")
    work([{"run": str(root / name)} | job for name, job in JOBS.items()], root, processes=2)
    return root


def seen(run: Path) -> list[dict[str, Any]]:
    """Records of the worker, by rank."""
    return [json.loads((run / f"seen-{rank}.json").read_text()) for rank in (0, 1)]


def lines(run: Path) -> list[dict[str, Any]]:
    """Records of losses in metrics.jsonl, without references and scores."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in found if "pace/sync_bytes" in line]


def networks(run: Path) -> dict[str, Any]:
    """State of the networks at the end."""
    state: dict[str, Any] = torch.load(run / "state.pt", weights_only=True)
    return {name: part for name, part in state.items() if name != "task"}


def updates(run: Path) -> dict[str, int]:
    """Number of updates, by network."""
    return {name: int(network["optimizer"]["state"][0]["step"]) for name, network in networks(run).items()}


@pytest.mark.parametrize("name", JOBS)
def test_both_processes_stay_equal(name: str, runs: Path) -> None:
    first, second = seen(runs / name)
    assert first["digests"] == second["digests"]
    assert first["error"] == second["error"]
    assert len(first["images"]) == len(second["images"])  # steps


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nan", {"generator": 7, "discriminator": 7}),
        ("nan-line-by-line", {"generator": 7, "discriminator": 7}),
        ("inf", {"generator": 8, "discriminator": 5}),
        ("allowed", {"generator": 4, "discriminator": 7}),
    ],
)
def test_the_run_goes_on_to_its_end_without_the_skipped_updates(
    name: str, expected: dict[str, int], runs: Path
) -> None:
    assert seen(runs / name)[0]["error"] is None
    assert len(seen(runs / name)[0]["images"]) == COMMON["train.steps"]
    assert updates(runs / name) == expected
    for network in networks(runs / name).values():
        for part in ("module", "ema"):
            assert all(value.isfinite().all() for value in network.get(part, {}).values())


@pytest.mark.parametrize(
    ("name", "key", "expected"),
    [
        ("nan", "diagnostics/generator/skipped", {4: 0, 8: 1}),
        ("nan", "diagnostics/discriminator/skipped", {4: 0, 8: 0}),
        ("inf", "diagnostics/discriminator/skipped", {4: 2, 8: 0}),
        ("inf", "diagnostics/generator/skipped", {4: 0, 8: 0}),
        ("allowed", "diagnostics/generator/skipped", {4: 2, 8: 2}),
    ],
)
def test_the_log_counts_what_an_interval_skipped(name: str, key: str, expected: dict[int, int], runs: Path) -> None:
    assert {line["step"]: line[key] for line in lines(runs / name)} == expected


def test_what_was_skipped_is_no_part_of_a_mean(runs: Path) -> None:
    each = [line for line in lines(runs / "nan-line-by-line") if line["step"] > 4]
    (mean,) = [line for line in lines(runs / "nan") if line["step"] == 8]
    for key in (
        "loss/generator/l1",
        "loss/generator/adversarial",
        "diagnostics/generator/gradient_norm",
        "loss/discriminator/real",
    ):
        found = [line[key] for line in each if key in line]
        assert len(found) == (3 if "/generator/" in key else 4)
        assert mean[key] == pytest.approx(sum(found) / len(found), rel=1e-4)
    assert all(math.isfinite(value) for name in JOBS for line in lines(runs / name) for value in line.values())


def test_too_many_in_a_row_end_the_run_at_the_next_line_of_the_log(runs: Path) -> None:
    error = seen(runs / "limit")[0]["error"]
    # Four were skipped, the last in step 6, which is logged.
    assert error.startswith(
        "Diverged: the gradient of the generator was not finite in 4 updates in a row, up to step 6"
    )
    assert "\n" not in error
    assert len(seen(runs / "limit")[0]["images"]) == 6
    assert not (runs / "limit/finished").exists()


def test_stop_ends_the_run_at_once(runs: Path) -> None:
    error = seen(runs / "stop")[0]["error"]
    assert error.startswith("Diverged: the gradient of the discriminator was not finite at step ")
    assert "\n" not in error
    assert len(seen(runs / "stop")[0]["images"]) == 3
    assert not (runs / "stop/finished").exists()
