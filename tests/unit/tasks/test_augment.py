"""What images go through before a discriminator sees them: pairs together, by the plan's numbers, and nothing else."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from colordist.data.sampler import UNIFORMS
from colordist.tasks.augment import augment, cutout, translation

LAST = 1 - 2**-24  # the largest number that the plan draws


def numbered(count: int, channels: int, height: int, width: int) -> Tensor:
    """Images in which no number is there twice, and none is zero."""
    numbers = torch.arange(1, count * channels * height * width + 1, dtype=torch.float64)
    return numbers.view(count, channels, height, width)


def chances(*rows: tuple[float, ...]) -> Tensor:
    """What the plan draws: zeros, but for these first columns."""
    return torch.tensor([[*row, *[0.0] * (UNIFORMS - len(row))] for row in rows], dtype=torch.float64)


def test_translation_by_hand() -> None:
    """A height of 16 is moved by -2, -1, 0, 1 or 2, a width of 8 by -1, 0 or 1."""
    images = numbered(3, 2, 16, 8)
    found = translation(images, torch.tensor([[0.0, LAST], [0.5, 0.5], [0.7, 0.2]]))
    up_and_right = torch.zeros(2, 16, 8, dtype=torch.float64)
    up_and_right[:, :14, 1:] = images[0, :, 2:, :7]
    down_and_left = torch.zeros(2, 16, 8, dtype=torch.float64)
    down_and_left[:, 1:, :7] = images[2, :, :15, 1:]
    assert torch.equal(found[0], up_and_right)
    assert torch.equal(found[1], images[1])
    assert torch.equal(found[2], down_and_left)


def test_cutout_by_hand() -> None:
    """Of 8x4 pixels a rectangle of 4x2; its middle is one of 0 to 8 down, one of 0 to 4 across."""
    images = numbered(3, 2, 8, 4)
    found = cutout(images, torch.tensor([[0.5, 0.5], [0.0, 0.0], [LAST, 0.3]]))
    expected = images.clone()
    expected[0, :, 2:6, 1:3] = 0  # middle 4 down, 2 across
    expected[1, :, 0:2, 0:1] = 0  # a quarter of it is left inside
    expected[2, :, 6:8, 0:2] = 0  # middle 8 down, 1 across
    assert torch.equal(found, expected)


@given(size=st.integers(16, 512), uniforms=st.sampled_from([0.0, 0.5, LAST]), double=st.booleans())
def test_no_size_and_no_chance_is_too_much(size: int, uniforms: float, double: bool) -> None:
    """Moved by an eighth, cut out by a half at most, whatever rounding does to the largest chance."""
    images = torch.ones(1, 1, size, 16, dtype=torch.float64 if double else torch.float32)
    drawn = torch.tensor([[uniforms, 0.5]], dtype=images.dtype)
    lost = size // 8 if uniforms != 0.5 else 0
    assert translation(images, drawn).sum() == (size - lost) * 16
    rows = (cutout(images, drawn)[0, 0] == 0).any(dim=1).sum()
    assert size // 4 - 1 <= rows <= size // 2


def test_grey_and_color_of_a_pair_change_alike() -> None:
    grey = numbered(5, 1, 16, 24)
    color = torch.cat([2 * grey, -grey], dim=1)
    drawn = torch.rand(5, UNIFORMS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    new_grey, new_color = augment(["translation", "cutout"], grey, color, drawn)
    assert torch.equal(new_color, torch.cat([2 * new_grey, -new_grey], dim=1))
    assert not torch.equal(new_grey, grey)
    again = augment(["cutout", "translation"], grey, color, drawn)
    assert torch.equal(again[0], new_grey)
    assert torch.equal(again[1], new_color)


def test_each_pair_has_its_own_chance() -> None:
    grey, color = numbered(4, 1, 16, 16), numbered(4, 2, 16, 16)
    drawn = torch.rand(4, UNIFORMS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    whole = augment(["translation", "cutout"], grey, color, drawn)
    for batch_index in range(4):
        part = slice(batch_index, batch_index + 1)
        alone = augment(["translation", "cutout"], grey[part], color[part], drawn[part])
        assert torch.equal(alone[0], whole[0][part])
        assert torch.equal(alone[1], whole[1][part])


def test_without_a_name_nothing_happens() -> None:
    grey, color = numbered(1, 1, 16, 16), numbered(1, 2, 16, 16)
    assert augment([], grey, color, chances((0.0, 0.0))) == (grey, color)


@pytest.mark.parametrize(("name", "columns"), [("translation", (0, 1)), ("cutout", (2, 3))])
def test_each_change_has_columns_of_its_own(name: str, columns: tuple[int, int]) -> None:
    grey, color = numbered(1, 1, 16, 16), numbered(1, 2, 16, 16)
    plain = augment([name], grey, color, chances((0.0,) * 4))
    for column in range(UNIFORMS):
        drawn = torch.zeros(1, UNIFORMS, dtype=torch.float64)
        drawn[0, column] = LAST
        assert torch.equal(augment([name], grey, color, drawn)[1], plain[1]) == (column not in columns)


def test_gradients_go_back_to_where_the_colors_came_from() -> None:
    """A sum over what is seen: each pixel's slope is how often it is seen, once or never."""
    color = numbered(3, 2, 16, 16).requires_grad_()
    drawn = chances((0.0, 0.9, 0.5, 0.5), (0.5, 0.5, 0.0, 0.99), (0.9, 0.0, 0.2, 0.7))
    _, seen = augment(["translation", "cutout"], torch.zeros(3, 1, 16, 16, dtype=torch.float64), color, drawn)
    seen.sum().backward()
    there = torch.isin(color.detach(), seen.detach())
    assert color.grad is not None
    assert torch.equal(color.grad, there.double())
    assert 0 < there.double().mean() < 1
