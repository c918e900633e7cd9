"""A run that is killed at random moments, and whose checkpoints are damaged, ends as if nothing had happened."""

from pathlib import Path

import pytest
from chaos import Run, draw_kills, torment
from runs import assert_bit_equal, learned

from colordist.run.folder import RunFolder

pytestmark = pytest.mark.dist


def survives(folder: Path, kills: int, task: str, processes: int, seed: int, *, damage: bool) -> None:
    """Kill a run, let it end, and compare it with one that nobody killed."""
    steps = 6 * kills + 40
    killed, straight = (Run(folder / name, task, steps, processes) for name in ("killed", "straight"))
    straight.finish()
    count = torment(killed, draw_kills(kills, seed, steps, processes, damage=damage), seed)
    print(count)
    assert count.kills == count.at_start + count.in_step + count.in_write == kills
    assert count.damaged == count.damaged_found
    assert (count.damaged > 0) == damage
    found, expected = RunFolder(killed.folder), RunFolder(straight.folder)
    assert_bit_equal(found, expected)
    assert learned(found) == learned(expected)
    logged = [record["step"] for record in found.records() if "diagnostics/generator/gradient_norm" in record]
    assert logged == list(range(1, steps + 1))


@pytest.mark.slow
def test_five_kills(tmp_path: Path) -> None:
    survives(tmp_path, 5, "cgan", 1, seed=1, damage=True)


@pytest.mark.long
@pytest.mark.parametrize("processes", [1, 2])
def test_fifty_kills(processes: int, tmp_path: Path) -> None:
    survives(tmp_path, 50, "cgan", processes, seed=0, damage=False)


@pytest.mark.long
def test_twenty_kills_and_damaged_checkpoints(tmp_path: Path) -> None:
    survives(tmp_path, 20, "autoencoder", 1, seed=0, damage=True)
