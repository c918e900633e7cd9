"""benchmarks/gpu.py without a GPU: it asks for what there is, computes shares rightly and tells what failed."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from helpers import ROOT

from colordist.cli.parser import parse

MODULES = ("gpu", "gpu_table", "gpu_training", "measuring")


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[str, ModuleType]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield {name: importlib.import_module(name) for name in MODULES}
        for name in MODULES:
            sys.modules.pop(name, None)


@pytest.mark.parametrize("file", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda file: file.stem)
def test_configs_are_read_as_the_command_line_reads_them(scripts: dict[str, ModuleType], file: Path) -> None:
    settings = {"train.steps": 10**6, "optimizer.generator.lr": 0.5}
    arguments = ["--config", str(file), *(f"--{key}={value}" for key, value in settings.items())]
    assert scripts["gpu_training"].read(str(file), settings) == parse(arguments).config


@pytest.mark.parametrize("rehearse", [False, True])
def test_what_is_asked_for_can_be_had(scripts: dict[str, ModuleType], rehearse: bool) -> None:
    parts = scripts["gpu"].parts(Path("painted.npy"), rehearse=rehearse)
    assert len({part.name for part in parts}) == len(parts) > 15
    for part in parts:
        if "config" in part.job:
            config = scripts["gpu_training"].read(part.job["config"], part.job.get("settings", {}))
            assert config.train.micro_batch_size is None
            assert not config.train.activation_checkpointing


def found(images_per_second: float, l1: float, **more: float) -> dict[str, Any]:
    rate = {"median": images_per_second, "min": images_per_second, "max": images_per_second, "n": 1}
    times = {"step_ms": rate, "host_share": 0.5, "waiting_for_data": 0.1, "peak_memory_mb": 200.0, "resident_mb": 7.0}
    batches = [{"batch": 64, "images_per_second": rate} | times, {"batch": 256, "failed": "out of memory"}]
    losses = {"generator/l1": l1, "generator/skipped": 0.0, "generator/gradient_norm": 5 * l1}
    return {"batches": batches, "losses": losses, "waits": "none", "seconds_of_first_step": 1.0} | more


def test_shares_by_hand(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    """2 TFLOP an image, 50 images a second: 100 of 400 TFLOP/s."""
    rate = {"median": 400.0, "min": 399.0, "max": 401.0, "n": 7}
    parts = {
        "ceilings": {"tflops": {"bf16": rate}, "size": 64, "copy_tb_per_second": rate},
        "speed/cgan/fp32/off": found(10.0, 0.5, flops_per_image=2e12),
        "speed/cgan/bf16/off": found(50.0, 0.6),
        "speed/cgan/bf16/graphs": {"failed": "exit code 1: boom"},
        "memory/cgan/bf16/off": {"expected_mb": {"bf16": {"64": 100.0}}},
    }
    scripts["gpu"].compare(parts)
    half = parts["speed/cgan/bf16/off"]
    batch = half["batches"][0]
    assert (batch["tflops"], batch["share_of_ceiling"]) == (100.0, 0.25)
    assert batch["expected_memory_mb"] == 107.0
    assert half["off_fp32"] == pytest.approx(0.2)
    assert half["finite"]
    text = scripts["gpu_table"].markdown({"parts": parts, "rehearsal": False}, tmp_path / "tests.xml")
    assert "| cgan | bf16 | off | 64 | 50 (50 to 50) | 50.00 (50.00 to 50.00) | 100.00 | 25.0 % |" in text
    assert "| cgan | bf16 | off | 256 | out of memory |" in text
    assert "- speed/cgan/bf16/graphs: exit code 1: boom" in text


def test_a_part_that_fails_says_why(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    run = scripts["gpu"].run
    assert run([sys.executable, "-c", "pass"], 60, tmp_path) is None
    assert run([sys.executable, "-c", "raise SystemExit('boom')"], 60, tmp_path) == "exit code 1: boom"


def test_without_a_gpu_one_line_says_so(
    scripts: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scripts["gpu"], "has_gpu", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    assert scripts["gpu"].main() == 2
    assert capsys.readouterr().err.count("\n") == 1
