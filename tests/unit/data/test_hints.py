"""Colour hints: how many, where, and what a network is given of them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from colordist.data.hints import POINTS, hints_of, painted, random_squares, squares
from colordist.data.sampler import Sampler, hint_positions

GOLDEN_SQUARES = [[27, 29, 48, 50], [34, 42, 22, 30], [8, 16, 48, 56]]
GOLDEN_POSITIONS = [[0.1630675196647644, 0.6133987307548523]]


def drawn(steps: int, batch: int = 50) -> NDArray[np.int64]:
    sampler = Sampler(3, 100, batch, True, hints=True)
    uniforms = [sampler.hint_uniforms(step, sampler.step(step)) for step in range(steps)]
    return random_squares(np.concatenate(uniforms), 64, 32)


def by_hand(where: NDArray[np.int64], target: Tensor) -> Tensor:
    """Hints of one image, pixel by pixel."""
    sums, count = torch.zeros_like(target), torch.zeros_like(target[:1])
    for top, bottom, left, right in where.tolist():
        inside = target[:, top:bottom, left:right]
        if inside.numel():
            sums[:, top:bottom, left:right] += inside.mean(dim=(1, 2), keepdim=True)
            count[:, top:bottom, left:right] += 1
    return torch.cat([sums / count.clamp(min=1), (count > 0).to(target)])


def test_half_of_the_images_have_none_and_the_others_eight_on_average() -> None:
    where = drawn(80)
    count = ((where[..., 1] > where[..., 0]) & (where[..., 3] > where[..., 2])).sum(1)
    assert abs((count == 0).mean() - 0.5) < 4 * 0.5 / 4000**0.5
    some = count[count > 0]
    assert abs(some.mean() - 8) < 4 * 7.5 / 2000**0.5  # a geometric distribution
    assert abs((some == 1).mean() - 1 / 8) < 4 * (1 / 8 * 7 / 8 / 2000) ** 0.5
    assert some.max() <= POINTS


def test_squares_are_anywhere_within_the_image_and_of_any_size() -> None:
    where = drawn(80)
    where = where[where[..., 1] > where[..., 0]]
    assert (where.min(0) >= 0).all()
    assert (where.max(0) == [64, 64, 32, 32])[[1, 3]].all()
    inner = where[(where[:, 0] > 0) & (where[:, 1] < 64) & (where[:, 2] > 0) & (where[:, 3] < 32)]
    height, width = inner[:, 1] - inner[:, 0], inner[:, 3] - inner[:, 2]
    assert (height == width).all()
    assert np.unique(height).tolist() == [*range(1, 10)]


def test_the_squares_of_a_seed_never_change() -> None:
    """A run that is resumed by a later version goes on with the same hints."""
    sampler = Sampler(3, 100, 4, True, hints=True)
    where = random_squares(sampler.hint_uniforms(1, sampler.step(1)), 64, 64)
    assert where[where[..., 1] > where[..., 0]][:3].tolist() == GOLDEN_SQUARES
    assert hint_positions(7, 1) == pytest.approx(np.array(GOLDEN_POSITIONS), abs=1e-7)


def test_the_first_of_many_hints_are_those_of_few() -> None:
    assert np.array_equal(hint_positions(7, 50)[:5], hint_positions(7, 5))
    assert len({tuple(hint_positions(image, 1)[0]) for image in range(100)}) == 100


@settings(max_examples=60)
@given(
    points=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True), st.integers(0, 9)),
        min_size=1,
        max_size=12,
    ),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    channels=st.sampled_from([2, 3]),
)
def test_hints_are_means_of_squares_averaged_where_they_overlap(
    points: list[tuple[float, float, int]], height: int, width: int, channels: int
) -> None:
    target = torch.randn(1, channels, height, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    places, sides = np.array([each[:2] for each in points]), np.array([each[2] for each in points])
    where = squares(places[None], sides[None], height, width)
    found = hints_of(torch.from_numpy(where), target)
    torch.testing.assert_close(found[0], by_hand(where[0], target[0]), rtol=1e-12, atol=1e-12)
    for (y, x, side), (top, bottom, left, right) in zip(points, where[0], strict=True):
        if side:  # a hint covers the pixel that it is at
            assert top <= int(y * height) < bottom
            assert left <= int(x * width) < right


def test_given_colours_by_hand() -> None:
    where = torch.tensor([[[0, 1, 0, 2], [0, 2, 1, 2], [0, 0, 0, 0]]])
    color = torch.tensor([[[1.0, 10.0], [3.0, 30.0], [100.0, 100.0]]])
    assert painted(where, color, torch.zeros(1, 1, 2, 3)).tolist() == [
        [[[1, 2, 0], [0, 3, 0]], [[10, 20, 0], [0, 30, 0]], [[1, 1, 0], [0, 1, 0]]]
    ]
