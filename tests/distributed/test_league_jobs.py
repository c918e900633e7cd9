"""The league's trainings: begun, killed and continued by their commands, with what each step has seen."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = [
    pytest.mark.dist,
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="the league needs Linux's /proc"),
]
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def league() -> Iterator[ModuleType]:
    """The league's modules, imported as the benchmark does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        patch.setattr(sys, "path", [*sys.path])  # the rivals' shared module adds the benchmarks
        yield importlib.import_module("league")
    for name in [name for name, each in sys.modules.items() if str(BENCHMARKS) in str(getattr(each, "__file__", ""))]:
        del sys.modules[name]


@pytest.mark.parametrize("name", ["colordist", "Accelerate"])
def test_a_killed_training_sees_each_image_once(league: ModuleType, tmp_path: Path, name: str) -> None:
    """Two epochs on two processes, killed in the second one."""
    images = tmp_path / "images"
    league.write_images(images)
    job = league.Job(league.RIVALS[name], tmp_path / "out", images, 2 * league.EPOCH, save_every=20)
    try:
        job.resume()
        job.wait_step(45)
        job.kill()
        assert job.pids() == []
        job.resume()
        continued = min(record.step for record in job.records() if record.attempt == 1)
        assert continued in (21, 41)  # colordist may still have been writing the second checkpoint
        job.wait_step(2 * league.EPOCH)
        job.wait_ended(60)
    finally:
        job.kill()
    steps = league.lasting(job.records(), survives=False)
    assert list(steps) == list(range(1, 2 * league.EPOCH + 1))
    assert {record.attempt for record in steps[45]} == {1}
    assert league.repeated_and_lost(steps, league.IMAGES, league.EPOCH) == (0, 0)
    assert job.by_hand == 0
