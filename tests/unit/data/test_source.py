"""A part of the training images: which ones depends on the seed alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colordist.data.source import ArraySplit, Source, part_of_training


def numbered(count: int) -> Source:
    """A source each of whose images tells its place."""
    images = np.arange(count).repeat(3).reshape(count, 1, 1, 3).astype(np.uint8)
    return Source("numbered", ArraySplit(images), ArraySplit(images))


def places(source: Source) -> list[int]:
    return [int(source.train[index][0, 0, 0]) for index in range(len(source.train))]


@given(count=st.integers(1, 200), fraction=st.floats(0, 1, exclude_min=True), seed=st.integers(0, 5))
def test_a_share_of_the_images(count: int, fraction: float, seed: int) -> None:
    part = part_of_training(numbered(count), fraction, seed)
    found = places(part)
    assert len(found) == max(1, round(fraction * count))
    assert found == sorted(set(found))  # each once, in the source's order
    assert len(part.test) == count
    assert set(found) <= set(places(part_of_training(numbered(count), min(1.0, 2 * fraction), seed)))


def test_the_choice_never_changes() -> None:
    """Not between machines, and not between versions: runs would learn from other images."""
    assert places(part_of_training(numbered(40), 0.1, seed=0)) == [3, 11, 13, 20]
    assert places(part_of_training(numbered(40), 0.1, seed=1)) != [3, 11, 13, 20]


def test_all_of_it_is_the_source_itself() -> None:
    source = numbered(3)
    assert part_of_training(source, 1.0, 5) is source


@pytest.mark.parametrize("seed", range(3))
def test_no_image_is_favoured(seed: int) -> None:
    """Among 100 seeds each of 10 images is in the half about 50 times."""
    counts = np.zeros(10)
    for each in range(100 * seed, 100 * seed + 100):
        counts[places(part_of_training(numbered(10), 0.5, each))] += 1
    assert counts.sum() == 500
    assert counts.min() > 30
