"""Bundled models: each loads, colours photographs of any shape, and says where it comes from."""

from pathlib import Path

import numpy as np
import pytest
import skimage.data
from numpy.typing import NDArray
from PIL import Image
from skimage import color as skimage_color

import colordist
from colordist.inference.colorizer import read_photo
from colordist.inference.hints import Hint
from colordist.run import snapshot

MODELS = ["photos-hints", "photos-small"]


def difference(images: list[Image.Image], true: list[NDArray[np.uint8]]) -> float:
    """Mean CIEDE2000 over some photographs."""
    lab = [[skimage_color.rgb2lab(np.asarray(image)) for image in pair] for pair in zip(images, true, strict=True)]
    each = [skimage_color.deltaE_ciede2000(*pair).mean() for pair in lab]  # type: ignore[no-untyped-call]
    return float(np.mean(each))


def test_all_are_tested() -> None:
    assert snapshot.bundled() == MODELS


@pytest.mark.parametrize("name", MODELS)
def test_photographs_come_nearer_to_their_true_colors_than_grey(name: str) -> None:
    photographs = [getattr(skimage.data, each)() for each in ("astronaut", "chelsea", "coffee", "rocket")]
    images = [Image.fromarray(each) for each in photographs]
    grey = [read_photo(each).grey.convert("RGB") for each in images]
    assert difference(colordist.load(name).colorize(images), photographs) < 0.9 * difference(grey, photographs)


@pytest.mark.parametrize("name", MODELS)
def test_photographs_of_any_shape_keep_their_grey(name: str) -> None:
    photographs = [Image.linear_gradient("L").resize(size) for size in ((320, 240), (97, 500), (33, 17), (1, 40))]
    for given, colored in zip(photographs, colordist.load(name).colorize(photographs), strict=True):
        assert colored.size == given.size
        luma = np.asarray(read_photo(colored).grey).astype(int)
        assert abs(luma - np.asarray(given)).max() <= 1


@pytest.mark.parametrize("name", MODELS)
def test_it_is_small_and_gives_credit(name: str) -> None:
    folder = snapshot.BUNDLED / name
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 10e6
    card = (folder / "README.md").read_text()
    assert "Apache License 2.0" in card
    assert "Creative Commons Attribution 4.0" in card
    assert "CIEDE2000" in card
    assert f"colordist/bundled/{name}" in (Path(__file__).parents[3] / "NOTICE").read_text()


def test_a_hint_comes_out_in_its_photograph() -> None:
    """A blue table instead of a brown one."""
    cup = Image.fromarray(skimage.data.coffee())  # type: ignore[no-untyped-call]
    colorizer = colordist.load("photos-hints")
    plain, hinted = (np.asarray(colorizer(cup, hints=hints)).astype(int) for hints in ([], [Hint(100, 300, "#3050c0")]))
    changed = np.abs(hinted - plain).sum(-1)
    assert changed[280:320, 80:120].mean() > 40
    red, _, blue = hinted[280:320, 80:120].mean((0, 1))
    assert blue > red + 20
    assert colorizer.takes_hints
