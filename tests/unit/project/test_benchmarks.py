"""The benchmarks' harness: order of arms, medians, processes that answer; benchmarks on a GPU have valid options."""

import argparse
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from helpers import ROOT

from colordist.cli.parser import parse
from colordist.config import Config
from colordist.errors import UserError

MODULES = ("harness", "gpu", "choices", "memory", "scale", "speed", "step")
ANSWERS = "import sys\nfor line in sys.stdin: print('{\"asked\": \"' + line.strip() + '\"}', flush=True)"


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[str, Any]]:
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield {name: importlib.import_module(name) for name in MODULES}
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "").parent == ROOT / "benchmarks":
            del sys.modules[name]


@pytest.fixture
def harness(scripts: dict[str, Any]) -> ModuleType:
    found: ModuleType = scripts["harness"]
    return found


def test_the_order_of_arms_is_reversed(harness: ModuleType) -> None:
    """The first arm changes from round to round, and the first block of each isn't counted."""
    order: list[str] = []

    def arm(name: str) -> float:
        order.append(name)
        return float(len(order))

    found = harness.alternate({name: lambda name=name: arm(name) for name in "ab"}, rounds=3)
    assert "".join(order) == "baabbaab"
    assert found == {"a": [3, 6, 7], "b": [4, 5, 8]}


def test_ratios_are_taken_round_by_round(harness: ModuleType) -> None:
    found = harness.ratio({"a": [1.0, 2.0, 4.0], "b": [1.0, 1.0, 1.0]}, "a", "b")
    assert found == {"median": 2, "min": 1, "max": 4, "n": 3}


def test_processes_answer_by_rank_and_end(harness: ModuleType) -> None:
    with harness.Processes([sys.executable, "-c", ANSWERS], 2, {}) as processes:
        assert processes.ask("block 5") == [{"asked": "block 5"}] * 2
    assert all(process.returncode is not None for process in processes.processes)


def test_a_process_that_fails_ends_the_benchmark(harness: ModuleType) -> None:
    with (
        harness.Processes([sys.executable, "-c", "raise SystemExit(1)"], 1, {}) as processes,
        pytest.raises(SystemExit, match="a process failed"),
    ):
        processes.ask("extras")


@pytest.mark.parametrize("file", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda file: file.stem)
def test_configs_are_read_as_the_command_line_reads_them(harness: ModuleType, file: Path) -> None:
    settings = {"train.steps": 10**6, "optimizer.generator.lr": 0.5, "train.micro_batch_size": None}
    given = ["--train.steps=1000000", "--optimizer.generator.lr=0.5", "--train.micro_batch_size=null"]
    assert harness.config_of(file, settings) == parse(["--config", str(file), *given]).config


def test_settings_of_components_that_are_not_chosen_are_left_out(harness: ModuleType) -> None:
    """cgan.yaml names a folder and classes, which painted scenes don't have."""
    config = harness.config_of(ROOT / "configs" / "cgan.yaml", {}, harness.SETTINGS)
    assert (config.data.source, config.data.train_images, config.task.warmup_steps) == ("synthetic", 300, 0)
    config = harness.config_of(ROOT / "configs" / "ae.yaml", {"data.source": "folder"}, harness.SETTINGS)
    assert (config.data.root, config.data.classes) == ("data", "all")
    with pytest.raises(UserError, match=r"unknown key data\.train_imagez"):
        harness.config_of(ROOT / "configs" / "cgan.yaml", {"data.train_imagez": 5}, harness.SETTINGS)


def test_of_settings_the_last_one_counts(harness: ModuleType) -> None:
    options = argparse.Namespace(config=ROOT / "configs" / "cgan.yaml", set=["train.tf32=true", "model.width=8"])
    config = harness.load(options, {"model.width": 4, "train.steps": 7}, {"train.tf32": False})
    assert (config.model.width, config.train.steps, config.train.tf32) == (8, 7, False)


@pytest.mark.parametrize("rehearse", [False, True])
def test_options_on_a_gpu_are_valid(scripts: dict[str, Any], rehearse: bool) -> None:
    known = {*scripts["choices"].ARMS, "CUDA graphs", "cuDNN search", "TF32", "fp16"}  # the latter on GPUs
    parts = scripts["gpu"].parts(rehearse=rehearse)
    assert len({part.name for part in parts}) == len(parts)
    for part in parts:
        script, *arguments = part.command
        assert (ROOT / "benchmarks" / script).exists()
        if "--arms" in arguments:
            assert set(until_next(arguments, "--arms")) <= known
        if "--cases" in arguments:
            assert set(until_next(arguments, "--cases")) <= set(scripts["memory"].CASES)
        file = until_next(arguments, "--configs") or until_next(arguments, "--config") or ["configs/cgan.yaml"]
        given = argparse.Namespace(config=ROOT / file[0], set=until_next(arguments, "--set"))
        assert fetches_nothing(scripts["harness"].load(given))


def test_memory_is_measured_without_a_download(scripts: dict[str, Any]) -> None:
    assert all(fetches_nothing(scripts["memory"].settings(case)) for case in scripts["memory"].CASES)


def fetches_nothing(config: Config) -> bool:
    """Whether a run begins without pretrained weights."""
    return not (config.task.pretrained or config.model.pretrained)


def until_next(arguments: list[str], option: str) -> list[str]:
    """The values of an option."""
    if option not in arguments:
        return []
    rest = arguments[arguments.index(option) + 1 :]
    ends = [place for place, each in enumerate(rest) if each.startswith("--")]
    return rest[: ends[0]] if ends else rest


def test_a_part_that_fails_says_why(scripts: dict[str, Any], tmp_path: Path) -> None:
    run = scripts["gpu"].run
    assert run([sys.executable, "-c", "pass"], 60, tmp_path / "log") is None
    assert run([sys.executable, "-c", "raise SystemExit('boom')"], 60, tmp_path / "log") == "exit code 1: boom"


def test_without_a_gpu_one_line_says_so(
    scripts: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(scripts["gpu"], "has_gpu", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py", str(tmp_path)])
    assert scripts["gpu"].main() == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_bare_loop_refuses_other_configs(scripts: dict[str, Any]) -> None:
    config = parse(["--config", str(ROOT / "configs" / "cyclegan.yaml")]).config
    with pytest.raises(ValueError, match="alone"):
        scripts["step"].require_supported(config)
    scripts["step"].require_supported(parse(["--config", str(ROOT / "configs" / "cgan.yaml")]).config)


def test_what_a_process_of_many_pays_is_measured(scripts: dict[str, Any], tmp_path: Path) -> None:
    world = scripts["scale"].World(3, 2, tmp_path, training_images=50, numbers=1000, pause=0)
    assert all(arm() > 0 for arm in world.arms().values())
