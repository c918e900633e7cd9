"""Steps of every task on the null device: nothing stays on the CPU, nobody waits, and operations are few."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from null_build import HERE, environment

pytestmark = [pytest.mark.null]

PRECISIONS = ("fp32", "bf16", "fp16")
SLACK = 1.03  # other versions of PyTorch launch a few more or less
BUDGET = {
    "ae": (205, 381, 392),
    "cgan": (422, 650, 672),
    "cgan, accumulated": (1030, 1648, 1674),
    "cgan, everything": (927, 1289, 1311),
    "cyclegan": (1814, 3034, 3078),
    "flow": (319, 544, 555),
    "variants": (481, 711, 733),
    "photos_cgan": (1128, 1685, 1614),
}
"""Operations of a step, by precision: kernels, products, convolutions and copies. A fast GPU waits for them to be
handed over, so an increase needs a reason. Who reduces them writes the new number here."""

Found = dict[str, dict[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def found(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What ``steps_worker.py`` finds. Prints the operations by part, for ``pytest -s``."""
    file = tmp_path_factory.mktemp("steps") / "found.json"
    run(library, str(HERE / "steps_worker.py"), str(file))
    result: Found = json.loads(file.read_text())
    for case, precisions in result.items():
        print()
        for precision, each in precisions.items():
            parts = ", ".join(f"{part} {count}" for part, count in each["parts"].items())
            print(f"{case}, {precision}: {sum(each['parts'].values())} operations ({parts})")
    return result


@pytest.mark.parametrize("case", BUDGET)
def test_everything_is_on_the_device(case: str, found: Found) -> None:
    for precision in PRECISIONS:
        assert found[case][precision]["device"] == "cuda"
        assert found[case][precision]["on the CPU"] == []


@pytest.mark.parametrize("case", BUDGET)
def test_between_lines_of_the_log_nobody_waits_for_the_device(case: str, found: Found) -> None:
    for precision in PRECISIONS:
        assert found[case][precision]["waits"] == {}


def test_rank_0_of_many_waits_for_the_device_no_more(library: Path, tmp_path: Path) -> None:
    """Of 8 and of 512, in every precision."""
    run(library, str(HERE / "many_worker.py"), str(tmp_path / "waits.json"))
    waits = json.loads((tmp_path / "waits.json").read_text())
    assert len(waits) == len(BUDGET) * len(PRECISIONS) * 2
    assert {case: found for case, found in waits.items() if found} == {}


@pytest.mark.parametrize("case", BUDGET)
def test_operations_of_a_step_keep_to_their_budget(case: str, found: Found) -> None:
    counted = [sum(found[case][precision]["parts"].values()) for precision in PRECISIONS]
    for precision, count, budget in zip(PRECISIONS, counted, BUDGET[case], strict=True):
        assert count <= SLACK * budget, (precision, found[case][precision]["parts"])


@pytest.mark.parametrize("case", BUDGET)
def test_a_checkpoint_is_copied_from_the_device_in_few_pieces(case: str, found: Found) -> None:
    assert all(found[case][precision]["copies of a checkpoint"] <= 3 for precision in PRECISIONS)


WAITING = """
import null_device, torch

def waits(work):
    before = null_device.counts()
    work()
    return any((null_device.counts() - before)[name] for name in null_device.WAITS)

x, pinned = torch.ones(4, device="cuda"), torch.ones(4).pin_memory()
assert waits(lambda: float(x[0]))
assert waits(lambda: x.cpu())
assert waits(lambda: x.nonzero())
assert waits(lambda: torch.ones(4).to("cuda"))
assert waits(lambda: torch.cuda.synchronize())
assert waits(lambda: torch.cuda.current_stream().record_event().synchronize())
assert not waits(lambda: pinned.to("cuda", non_blocking=True))
assert not waits(lambda: x + x)
"""


def run(library: Path, *command: str) -> None:
    """Run Python on the null device. Fails with its standard error."""
    done = subprocess.run(
        [sys.executable, *command], env=environment(library), capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr


def test_what_waits_is_noticed(library: Path) -> None:
    run(library, "-c", WAITING)


def test_batches_are_copied_before_their_memory_is_reused(library: Path) -> None:
    run(library, str(HERE / "copies_worker.py"))
