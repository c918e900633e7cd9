"""Rows of a table to hints, and points on a small copy."""

from pathlib import Path

import numpy as np
import pytest
from photos import noise, pixels
from PIL import Image

from colordist.errors import UserError
from colordist.inference.hints import Hint
from colordist.serving.points import full_size, hex_color, hints_of, marked
from colordist.serving.service import Picture


def test_rows_become_hints() -> None:
    rows: list[list[object]] = [
        [3, 4.5, "#2e6da4"],
        ["7", " 8 ", "red"],
        [None, "", "#2e6da4"],
        [float("nan"), "", ""],
        [],
    ]
    assert hints_of(rows) == (Hint(3.0, 4.5, "#2e6da4"), Hint(7.0, 8.0, "red"))


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (["a", 2, "red"], "point 2: x is 'a', but must be a number of pixels"),
        ([1, "", "red"], "point 2: y is '', but must be a number of pixels"),
        ([1, 2, "reddish"], "point 2: color is 'reddish', but must be a colour, as '#2e6da4'"),
        ([1, 2], "point 2: color is '', but must be a colour"),
        (["inf", 2, "red"], "point 2: x is inf, but must be a number of pixels"),
    ],
)
def test_a_row_that_is_no_point_is_one_line(row: list[object], told: str) -> None:
    with pytest.raises(UserError) as caught:
        hints_of([[1, 2, "red"], row])
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize(
    ("text", "color"),
    [
        ("rgba(46.3, 108.9, 164, 1)", "#2e6da4"),
        ("rgb(0,0,999)", "#0000ff"),
        ("#2E6DA4", "#2E6DA4"),
        ("rgb(1.2.3, 0, 0)", "rgb(1.2.3, 0, 0)"),
        ("red", "red"),
    ],
)
def test_colours_of_a_picker(text: str, color: str) -> None:
    assert hex_color(text) == color


def test_points_are_drawn_where_they_were_clicked(tmp_path: Path) -> None:
    noise(200, 150).convert("L").save(tmp_path / "before.jpg")
    picture = Picture(tmp_path / "a.png", tmp_path / "before.jpg", tmp_path, tmp_path, (800, 600), (200, 150))
    assert full_size(picture, 0, 0) == (2.0, 2.0)
    x, y = full_size(picture, 50, 100)
    assert (x, y) == (202.0, 402.0)
    found = pixels(Image.open(marked(picture, [[x, y, "#ff0000"], ["no", 1, "red"]])))
    red = np.argwhere((found[..., 0] > 200) & (found[..., 1:].max(-1) < 90))
    np.testing.assert_allclose(red.mean(0), [100, 50], atol=1)
