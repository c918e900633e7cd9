"""Colours at a photo's resolution: in strips as at once, sharp where luma is, and never other colours."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from photos import noise
from PIL import Image
from torch import Tensor

from colordist.inference.upsampling import METHODS, upsampler

torch.set_num_threads(1)
methods = st.sampled_from(sorted(METHODS))
sides = st.one_of(st.integers(1, 9), st.integers(1, 120))


def colors(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(2, height, width, generator=torch.Generator().manual_seed(seed))


def whole(method: str, color: Tensor, grey: Image.Image) -> Tensor:
    return upsampler(method, color, grey)(range(grey.height))


@given(methods, sides, sides, sides, sides, st.integers(1, 50), st.integers(0, 99))
def test_strips_are_the_whole(method: str, width: int, height: int, w: int, h: int, rows: int, seed: int) -> None:
    grey = noise(width, height, "L", seed)
    upsample = upsampler(method, colors(h, w, seed), grey)
    strips = [upsample(range(top, min(top + rows, height))) for top in range(0, height, rows)]
    result = upsample(range(height))
    assert result.shape == (2, height, width)
    assert torch.equal(torch.cat(strips, dim=1), result)


@given(methods, sides, sides, st.floats(-3, 3, width=32), st.integers(0, 99))
def test_one_color_stays_that_color(method: str, width: int, height: int, value: float, seed: int) -> None:
    color = torch.full((2, min(7, height), min(5, width)), value)
    assert (whole(method, color, noise(width, height, "L", seed)) == value).all()


@given(sides, sides, st.integers(0, 99))
def test_no_color_is_beyond_those_nearby(width: int, height: int, seed: int) -> None:
    color = colors(min(6, height), min(9, width), seed)
    result = whole("guided", color, noise(width, height, "L", seed))
    for channel, source in zip(result, color, strict=True):
        assert source.min() - 1e-6 <= channel.min()
        assert channel.max() <= source.max() + 1e-6
    dyed = color.clone()
    dyed[:, :, -1] += 100  # nothing of it reaches pixels that are more than three columns away
    near = max(int(width * (color.shape[2] - 4) / color.shape[2]), 0)
    assert torch.equal(whole("guided", dyed, noise(width, height, "L", seed))[..., :near], result[..., :near])


@pytest.mark.parametrize("method", METHODS)
def test_at_the_same_size_nothing_changes(method: str) -> None:
    color = colors(30, 40)
    assert torch.equal(whole(method, color, noise(40, 30, "L")), color)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("turned", [False, True])
def test_interpolation_by_hand(method: str, turned: bool) -> None:
    """Without luma to follow: bilinear, or the cubic of Keys, here a quarter of the way between two colours."""
    color = torch.tensor([0.0, 8, 16, 64, 64]).expand(2, 3, 5)
    grey = Image.new("L", (10, 6), 77)
    if turned:
        color, grey = color.mT, grey.transpose(Image.Transpose.ROTATE_90)
    result = whole(method, color, grey)
    result = result.mT if turned else result
    # Pixel 5 lies at 5.5 / 2 - 0.5 = 2.25. Cubic: weights -9/128, 111/128, 29/128, -3/128.
    expected = {"bilinear": 16 * 0.75 + 64 * 0.25, "guided": (-9 * 8 + 111 * 16 + 29 * 64 - 3 * 64) / 128}
    assert result[0, 3, 5].item() == pytest.approx(expected[method])


def test_an_edge_of_luma_is_an_edge_of_color() -> None:
    """A step in the middle of 32 columns, with colours that are the luma, seen at 8 columns."""
    grey = Image.new("L", (32, 32))
    grey.paste(255, (16, 0, 32, 32))
    seen = torch.from_numpy(np.array(grey.resize((8, 8), Image.Resampling.BOX))) / 255
    color = torch.stack([seen, -seen])
    soft, sharp = (whole(method, color, grey)[0, 16, 14:18].tolist() for method in ("bilinear", "guided"))
    assert soft == [0.125, 0.375, 0.625, 0.875]  # column 14 is at 14.5 / 4 - 0.5 = 3.125, and so on
    assert sharp == pytest.approx([0, 1 / 3, 2 / 3, 1], abs=0.04)  # the step, over 3 pixels
    assert torch.allclose(*whole("guided", color, grey) * torch.tensor([1, -1]).view(2, 1, 1))


def test_luma_that_explains_nothing_changes_little() -> None:
    """A step in luma across a step in colour: colours stay as they are, with luma or without."""
    grey = Image.new("L", (64, 64), 60)
    grey.paste(190, (0, 32, 64, 64))
    color = torch.zeros(2, 8, 8)
    color[:, :, 4:] = 1
    flat = whole("guided", color, Image.new("L", (64, 64), 60))
    assert (whole("guided", color, grey) - flat).abs().max() < 0.02


def test_larger_colors_are_reduced() -> None:
    color = torch.zeros(2, 40, 40)
    color[:, :, ::2] = 1
    for method in METHODS:
        torch.testing.assert_close(
            whole(method, color, noise(10, 10, "L")).mean(), torch.tensor(0.5), atol=0.02, rtol=0
        )
