"""The viewer of pictures in a real browser, on a page of its own."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from colordist.reporting.template import environment
from colordist.reporting.viewer import Example, figures

pytest.importorskip("playwright", reason="needs playwright: pip install playwright")
from playwright.sync_api import Browser, Locator, Page

pytestmark = pytest.mark.browser

PAGE = """{% import "viewer.html" as viewer %}<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>Examples</title>
<style>{% include "style.css" %}{% include "viewer.css" %}</style></head>
<body><h2>Worst</h2>{{ worst }}<h2>Best</h2>{{ best }}{{ viewer.dialog() }}</body></html>"""

HOSTILE = "\"'</figure><script>throw 1</script><img src=x onerror='throw 2'>"


def example(name: str, width: int, height: int, labels: tuple[str, ...] = ("grey", "answer", "truth")) -> Example:
    """Each picture in one colour: (0, 0, 0), (40, 40, 40), (80, 80, 80)."""
    shape = (height, width, 3)
    pictures = {label: np.full(shape, 40 * at, np.uint8) for at, label in enumerate(labels)}
    return Example(name, pictures, "CIEDE2000 12.3")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sections, three photographs: wide, tall with a hostile name, and one with fewer pictures."""
    file = tmp_path_factory.mktemp("viewer") / "examples.html"
    worst = figures([example("wide.jpg", 200, 100), example(HOSTILE, 100, 200, ("grey", HOSTILE, "truth"))])
    best = figures([example("a long name of a photograph " * 4, 160, 160, ("answer", "truth"))])
    file.write_text(environment().from_string(PAGE).render(worst=worst, best=best))
    return file


@pytest.fixture
def view(browser: Browser, file: Path) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    view = context.new_page()
    complaints: list[str] = []
    view.on("console", lambda message: complaints.append(message.text))
    view.on("pageerror", lambda error: complaints.append(str(error)))
    view.on("request", lambda request: complaints.append(request.url) if request.url.startswith("http") else None)
    view.goto(file.as_uri())
    yield view
    assert complaints == []
    context.close()


def opened(view: Page, name: str = "wide.jpg, answer") -> Locator:
    view.get_by_role("button", name=name).click()
    return view.get_by_role("dialog")


def colors(view: Page) -> list[int]:
    """Brightness of the pictures near the left and right edge, as drawn."""
    drawn = np.asarray(Image.open(BytesIO(view.locator("#viewer .stage").screenshot())).convert("L"))
    quarter = len(drawn) // 4  # above the divider's grip
    return [int(drawn[quarter, 4]), int(drawn[quarter, -5])]


def test_what_was_clicked_is_left_and_the_last_is_right(view: Page) -> None:
    viewer = opened(view)
    assert viewer.locator("#viewer-name").inner_text() == "wide.jpg"
    assert viewer.locator("#viewer-caption").inner_text() == "CIEDE2000 12.3"
    assert colors(view) == [40, 80]
    viewer.get_by_label("Left").select_option("grey")
    assert colors(view) == [0, 80]
    viewer.get_by_role("button", name="Close").click()
    opened(view, "wide.jpg, truth")
    assert colors(view) == [40, 80]  # not the truth beside itself


def test_slider_by_keyboard(view: Page) -> None:
    viewer = opened(view)
    slider = viewer.get_by_role("slider", name="Divider")
    assert slider.evaluate("slider => slider === document.activeElement")
    view.keyboard.press("ArrowRight")
    assert slider.input_value() == "51"
    assert slider.get_attribute("aria-valuetext") == "51 % answer, the rest truth"
    view.keyboard.press("Home")
    assert colors(view)[0] == 80
    view.keyboard.press("End")
    assert colors(view)[1] == 40
    viewer.get_by_role("button", name="Next").focus()
    view.keyboard.press("ArrowLeft")
    assert slider.input_value() == "99"


def test_slider_by_pointer(view: Page) -> None:
    viewer = opened(view)
    box = viewer.locator(".stage").bounding_box()
    assert box is not None
    for share in (0.25, 1.0):  # the divider is where the pointer is
        view.mouse.click(box["x"] + share * box["width"], box["y"] + 30)
        assert float(viewer.get_by_role("slider").input_value()) == pytest.approx(100 * share, abs=1)


def test_next_and_previous(view: Page) -> None:
    viewer = opened(view)
    position, name = viewer.locator("#viewer-position"), viewer.locator("#viewer-name")
    viewer.get_by_label("Left").select_option("grey")
    viewer.get_by_role("slider").focus()
    view.keyboard.press("ArrowDown")
    assert (position.inner_text(), name.inner_text()) == ("2 of 3", HOSTILE)
    assert colors(view) == [0, 80]  # the choice stays
    viewer.get_by_role("button", name="Next").click()
    assert position.inner_text() == "3 of 3"  # of all sections
    assert colors(view) == [0, 40]
    view.keyboard.press("ArrowDown")
    assert position.inner_text() == "1 of 3"
    view.keyboard.press("ArrowUp")
    assert position.inner_text() == "3 of 3"


def test_escape_returns_to_the_picture(view: Page) -> None:
    viewer = opened(view)
    view.keyboard.press("ArrowDown")
    view.keyboard.press("Escape")
    assert not viewer.is_visible()
    # The browser tells the page of the dialog's end a moment after it has closed it.
    view.wait_for_function("name => document.activeElement.closest('.example')?.dataset.name === name", arg=HOSTILE)
    view.keyboard.press("Enter")
    assert viewer.locator("#viewer-position").inner_text() == "2 of 3"


def test_pictures_keep_their_proportions(view: Page) -> None:
    viewer = opened(view)
    for ratio in (2.0, 0.5, 1.0):
        box = viewer.locator("img.left").bounding_box()
        assert box is not None
        assert box["width"] / box["height"] == pytest.approx(ratio, rel=0.01)
        view.keyboard.press("ArrowDown")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(400, 800), (800, 400)])
def test_small_screens(browser: Browser, file: Path, scheme: Literal["light", "dark"], width: int, height: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, has_touch=True)
    view = context.new_page()
    view.goto(file.as_uri())
    assert view.evaluate("document.documentElement.scrollWidth") == width
    view.get_by_role("button", name="wide.jpg, answer").tap()
    for _ in range(3):
        assert view.evaluate("viewer.scrollWidth") == width
        view.get_by_role("button", name="Next").tap()
    red = view.evaluate("getComputedStyle(viewer).backgroundColor.match(/\\d+/)[0]")
    assert int(red) < 60 if scheme == "dark" else int(red) > 200
    context.close()


def test_without_javascript_the_pictures_are_shown(browser: Browser, file: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    view = context.new_page()
    view.goto(file.as_uri())
    pictures = view.get_by_role("img").all()
    assert len(pictures) == 8
    assert all(picture.is_visible() for picture in pictures)
    assert not view.locator("#viewer").is_visible()
    context.close()
