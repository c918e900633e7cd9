"""Batches of an evaluation: bounded, and the same on any number of processes."""

import pytest

from colordist.evaluation.evaluator import batch_size


@pytest.mark.parametrize(
    ("side", "cpu", "cuda"), [(16, 256, 256), (32, 64, 64), (128, 4, 64), (256, 1, 32), (1024, 1, 2), (4096, 1, 1)]
)
def test_batches_are_larger_where_launches_take_the_time(side: int, cpu: int, cuda: int) -> None:
    assert batch_size(side**2, "cpu") == cpu
    assert batch_size(side**2, "cuda") == cuda
