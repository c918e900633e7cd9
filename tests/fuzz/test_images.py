"""Images with damaged headers and bodies: photographs to colour, answers to score, images to train on."""

import contextlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from forking import call, require_civil, run
from hypothesis import given
from hypothesis import strategies as st
from image_corpus import flag
from material import TINY, cases, fresh
from mutations import damaged, mutated

from colordist.errors import UserError

ORIGINALS = {
    "a.png": [flag("PNG"), flag("PNG", "RGBA"), flag("PNG", "P"), flag("PNG", "L")],
    "a.jpg": [flag("JPEG"), flag("JPEG", "L"), flag("JPEG", "CMYK"), flag("JPEG", progressive=True)],
    "a.webp": [flag("WEBP"), flag("WEBP", "RGBA", lossless=True)],
    "a.tif": [flag("TIFF"), flag("TIFF", "CMYK"), flag("TIFF", compression="tiff_lzw")],
    "a.bmp": [flag("BMP"), flag("BMP", "P")],
    "a.gif": [flag("GIF", "P")],
}

REFUSALS = (UserError, ValueError, TypeError)


@st.composite
def images(draw: Any) -> tuple[str, bytes]:  # noqa: ANN401
    """A damaged image, mostly in its first bytes."""
    name = draw(st.sampled_from(sorted(ORIGINALS)))
    original = draw(st.sampled_from(ORIGINALS[name]))
    header = draw(st.sampled_from([32, 128, len(original)]))
    return name, draw(damaged(original[:header])) + original[header:]


@pytest.mark.fuzz
@cases(100)
@given(image=images())
def test_colorize(trained: Path, photo: Path, place: Path, image: tuple[str, bytes]) -> None:
    fresh(place, trained, photo)
    (place / image[0]).write_bytes(image[1])
    arguments = ["colorize", "run", image[0], "photo.png", "-o", "out", "--resolution", "16"]
    result = call(arguments, place)
    require_civil(result)
    assert (place / "out" / "photo.png").is_file()  # the others aren't lost
    assert (place / image[0]).read_bytes() == image[1]


HINTS = {"photo.png": [{"x": 3, "y": 5.5, "color": "#12ab80"}, {"x": 31, "y": 0, "color": "teal"}]}


@pytest.mark.fuzz
@cases(60)
@given(content=mutated("hints.json", json.dumps(HINTS).encode()))
def test_hints(trained: Path, photo: Path, place: Path, content: bytes) -> None:
    fresh(place, trained, photo)
    (place / "hints.json").write_bytes(content)
    arguments = ["colorize", "run", "photo.png", "-o", "out", "--resolution", "16", "--hints", "hints.json"]
    require_civil(call(arguments, place))


@pytest.mark.fuzz
@cases(60)
@given(image=images(), side=st.sampled_from(["answers", "truth"]))
def test_evaluate_answers(photo: Path, place: Path, image: tuple[str, bytes], side: str) -> None:
    fresh(place)
    for folder in ("answers", "truth"):
        (place / folder).mkdir()
        shutil.copy(photo, place / folder)
        (place / folder / image[0]).write_bytes(image[1] if folder == side else ORIGINALS[image[0]][0])
    require_civil(call(["evaluate", "--answers", "answers", "--truth", "truth", "-o", "page.html"], place))


@pytest.mark.fuzz
@cases(50)
@given(image=images())
def test_training_on_a_folder(photo: Path, place: Path, image: tuple[str, bytes]) -> None:
    fresh(place)
    for split in ("train", "test"):
        folder = place / "photos" / split / "a"
        folder.mkdir(parents=True)
        for number in range(4):
            shutil.copy(photo, folder / f"{number}.png")
    (place / "photos" / "train" / "a" / image[0]).write_bytes(image[1])
    small = dict(zip(TINY[::2], TINY[1::2], strict=True))
    small = {key: value for key, value in small.items() if "_images" not in key or key.startswith("--train")}
    arguments = ["train", *(part for pair in small.items() for part in pair), "--task.name", "autoencoder"]
    arguments += ["--data.source", "folder", "--data.root", "photos", "--train.steps", "1", "--run.dir", "run"]
    require_civil(call(arguments, place))


@pytest.mark.fuzz
@cases(40)
@given(image=images(), resolution=st.sampled_from([None, 16, 17]))
def test_load(trained: Path, place: Path, image: tuple[str, bytes], resolution: int | None) -> None:
    fresh(place, trained)

    def use() -> None:
        from PIL import Image

        import colordist

        colorizer = colordist.load("run") if resolution is None else colordist.load("run", resolution=resolution)
        try:
            picture = Image.open(io.BytesIO(image[1]))
            picture.load()
        except Exception:
            return
        with contextlib.suppress(*REFUSALS):
            colorizer(picture)

    require_civil(run(use, ["load"], place))
