"""Pictures that open in a viewer: what is embedded, and names that are no markup."""

import re
from base64 import b64decode
from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from report_runs import Elements

from colordist.reporting.viewer import Example, Picture, embed, figures, storage_note

HOSTILE = "\"'</figure><script>alert(1)</script><img src=x onerror=alert(2)>{{7*7}}"


def noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def decoded(uri: str) -> Image.Image:
    return Image.open(BytesIO(b64decode(uri.split(",")[1])))


def test_small_pictures_are_exact() -> None:
    pixels = noise(48, 64)
    found = embed(pixels)
    assert (found.width, found.height, found.is_exact) == (64, 48, True)
    assert np.array_equal(np.asarray(decoded(found.uri)), pixels)
    assert storage_note(64) == ""


@pytest.mark.parametrize(
    ("size", "stored"), [((128, 128), (128, 128)), ((1024, 30), (1024, 30)), ((3000, 1500), (1024, 512))]
)
def test_photographs_keep_their_size_up_to_a_limit(size: tuple[int, int], stored: tuple[int, int]) -> None:
    photo = Image.new("RGB", size, (200, 30, 90))
    found = embed(photo)
    assert (found.width, found.height, found.is_exact) == (*stored, False)
    picture = decoded(found.uri)
    assert picture.format == "JPEG"
    assert picture.size == stored
    assert np.abs(np.asarray(picture).astype(int) - (200, 30, 90)).max() <= 2
    assert photo.size == size  # the caller's own isn't reduced


def test_chroma_is_not_subsampled() -> None:
    """Stripes one pixel wide, in two colours of nearly equal luma, stay stripes."""
    stripes = np.zeros((100, 100, 3), np.uint8)
    stripes[:, ::2], stripes[:, 1::2] = (200, 60, 60), (0, 140, 140)
    stored = np.asarray(decoded(embed(stripes).uri)).astype(int)
    assert stored[:, ::2, 0].mean() - stored[:, 1::2, 0].mean() > 150


def test_grey_pictures_and_transparent_ones_are_taken() -> None:
    assert decoded(embed(Image.new("L", (30, 20), 77)).uri).getpixel((0, 0)) == (77, 77, 77)
    assert decoded(embed(Image.new("RGBA", (300, 200))).uri).mode == "RGB"


def test_storage_is_told() -> None:
    assert storage_note(512) == "In this page the images are compressed (JPEG, quality 92)."
    assert "reduced from 2048 to 1024 pixels and compressed" in storage_note(2048)


def test_an_example_is_a_figure_of_labeled_pictures() -> None:
    answer = Image.fromarray(noise(20, 30))
    pictures: dict[str, Picture] = {"grey": noise(20, 30), "answer": answer, "truth": noise(20, 30)}
    found = Elements(figures([Example("a.jpg", pictures, "worst"), Example("b.jpg", pictures)])).found
    first, second = (attributes for tag, attributes in found if tag == "figure")
    assert (first["class"], first["data-name"], first["data-caption"]) == ("example", "a.jpg", "worst")
    assert second["data-name"] == "b.jpg"
    images = [attributes for tag, attributes in found if tag == "img"]
    assert [each["data-label"] for each in images] == 2 * ["grey", "answer", "truth"]
    assert (images[1]["alt"], images[1]["width"], images[1]["height"]) == ("a.jpg, answer", "30", "20")
    assert all((each["src"] or "").startswith("data:image/png;base64,") for each in images)
    stops = [attributes for tag, attributes in found if tag == "button" and "tabindex" not in attributes]
    assert len(stops) == 2  # one an example


def test_names_are_text() -> None:
    text = figures([Example(HOSTILE, {"grey": noise(8, 8), HOSTILE: noise(8, 8)}, HOSTILE)])
    elements = Elements(text)
    assert {tag for tag, _ in elements.found} == {"div", "figure", "figcaption", "b", "span", "button", "img"}
    assert elements.texts.count(HOSTILE) == 3  # name, caption, label
    assert not re.search(r"(src|href)=(?!\"data:)", text.replace("src=x", ""))
    assert not any(key.startswith("on") for _, attributes in elements.found for key in attributes)
