"""A corpus of odd files, each with its fate, made here: what photo folders in the wild are full of."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_corpus import FLAG, JPEG, USABLE, USELESS, Color, encode, paint
from numpy.typing import NDArray
from PIL import Image

from colordist.data.decode import MIN_SIDE, Undecodable, decode, fit


def corners(image: Image.Image) -> NDArray[np.int64]:
    """The colours a quarter of the way in from each corner: [4, 3]."""
    small = np.asarray(image.resize((4, 4), Image.Resampling.NEAREST), np.int64)
    return small[[0, 0, 3, 3], [0, 3, 0, 3]]


def write(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def test_corpus_is_large() -> None:
    assert len(USABLE) + len(USELESS) >= 100


@pytest.mark.parametrize("size", [None, 4])
@pytest.mark.parametrize("name", USABLE)
@pytest.mark.filterwarnings("ignore")
def test_usable(name: str, size: int | None, tmp_path: Path) -> None:
    content, expected = USABLE[name]
    image = decode(write(tmp_path, name, content), size)
    assert image.mode == "RGB"
    assert (image.width > image.height) == (name != "min_side.png")
    tolerance = 40 if name == "poor.jpg" else 16 if b"JFIF" in content or "a" in name.split(".")[-1] else 6
    np.testing.assert_allclose(corners(image), expected, atol=tolerance)


@pytest.mark.parametrize("name", USELESS)
@pytest.mark.filterwarnings("ignore")
def test_useless(name: str, tmp_path: Path) -> None:
    content, reason = USELESS[name]
    with pytest.raises(Undecodable) as caught:
        decode(write(tmp_path, name, content))
    assert caught.value.reason == reason


def make_link(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere.jpg")


def make_loop(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (make_link, "unreadable"),
        (make_loop, "unreadable"),
        (lambda path: None, "unreadable"),
        (os.mkdir, "not a regular file"),
        (os.mkfifo, "not a regular file"),
    ],
    ids=["broken link", "link to itself", "missing", "folder", "named pipe"],
)
def test_no_file(make: Callable[[Path], None], reason: str, tmp_path: Path) -> None:
    make(tmp_path / "x.jpg")
    with pytest.raises(Undecodable, match=f"^{reason}$"):
        decode(tmp_path / "x.jpg")


def test_no_permission(tmp_path: Path) -> None:
    path = write(tmp_path, "x.jpg", JPEG)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("root may read everything")
    with pytest.raises(Undecodable, match="unreadable"):
        decode(path)


def test_large_jpeg_is_decoded_small(tmp_path: Path) -> None:
    path = write(tmp_path, "x.jpg", encode(paint(FLAG).resize((2400, 1600)), "JPEG"))
    assert decode(path).size == (2400, 1600)
    small = decode(path, 32)
    assert 3 * 32 <= small.height < 1600
    whole, quick = (fit(image, 32).astype(int) for image in (decode(path), small))
    assert abs(whole - quick).mean() < 1


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=200)
@given(
    name=st.sampled_from(["baseline.jpg", "progressive.jpg", "palette.png", "plain.gif", "lossy.webp", "lzw.tiff"]),
    damage=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8),
    length=st.floats(0, 1),
)
def test_damage_never_crashes(
    name: str, damage: list[tuple[float, int]], length: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(USABLE[name][0])
    for place, value in damage:
        content[int(place * len(content))] = value
    path = write(tmp_path_factory.getbasetemp(), "damaged.jpg", bytes(content[: round(length * len(content))]))
    with contextlib.suppress(Undecodable):
        assert decode(path).mode == "RGB"


sides = st.integers(MIN_SIDE, 90)


@given(width=sides, height=sides, size=sides, color=st.tuples(*[st.integers(0, 255)] * 3))
def test_fit_gives_squares_of_the_same_color(width: int, height: int, size: int, color: Color) -> None:
    square = fit(Image.new("RGB", (width, height), color), size)
    assert square.dtype == np.uint8
    assert square.shape == (size, size, 3)
    assert (square == color).all()


@given(width=sides, height=sides, seed=st.integers(0, 9))
def test_fit_of_the_right_size_only_crops(width: int, height: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    side = min(width, height)
    top, left = (height - side) // 2, (width - side) // 2
    np.testing.assert_array_equal(fit(Image.fromarray(pixels), side), pixels[top : top + side, left : left + side])


def test_fit_keeps_the_centre_upright() -> None:
    for size in (16, 24, 200):
        np.testing.assert_allclose(corners(Image.fromarray(fit(paint(FLAG), size))), FLAG, atol=3)


def test_fit_is_antialiased() -> None:
    board = np.indices((256, 256)).sum(0) % 2 * 255
    square = fit(Image.fromarray(np.stack([board] * 3, -1).astype(np.uint8)), 16)
    np.testing.assert_allclose(square, 127.5, atol=6)
