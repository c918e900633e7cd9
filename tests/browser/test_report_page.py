"""The report's page in a real browser, opened from a file."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from helpers import alone_on_the_cpu
from PIL import Image
from report_runs import trained

from colordist.evaluate import carry_out
from colordist.reporting.comparison import compare
from colordist.reporting.html import page

pytest.importorskip("playwright", reason="needs playwright: pip install playwright")
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two settings, two seeds each."""
    folder = tmp_path_factory.mktemp("runs")
    runs = [
        trained(
            folder / f"{task}-{seed}",
            scores={"ciede2000": score + seed / 10, "psnr": 20.0, "colorfulness": 60.0 + score},
            settings={"task.name": task, "seed": seed, "train.global_batch_size": 16 if task == "cgan" else 32},
            answer=2 * seed + (task == "cgan"),
            losses=20,
        )
        for task, score in (("autoencoder", 9.0), ("cgan", 7.0))
        for seed in (1, 2)
    ]
    file = folder / "report.html"
    file.write_text(page(compare(runs)))
    return file


class Opened:
    """A page, and what went wrong in it."""

    def __init__(self, view: Page, file: Path) -> None:
        self.view = view
        self.complaints: list[str] = []
        self.requests: list[str] = []
        view.on("console", lambda message: self._console(message))
        view.on("pageerror", lambda error: self.complaints.append(str(error)))
        view.on("request", lambda request: self.requests.append(request.url))
        view.goto(file.as_uri())
        view.wait_for_selector("html[data-ready]", timeout=60_000)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def axis(self, ends: str = "x_range") -> list[float]:
        """Where the first chart's axis begins and ends, once it rests."""
        self.settle()
        found = self.view.evaluate(f"(range => [range.start, range.end])(Bokeh.documents[0].roots()[0].{ends})")
        return [float(end) for end in found]

    def settle(self) -> None:
        self.view.wait_for_function("Bokeh.documents[0].is_idle")
        self.view.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def order(self) -> list[int]:
        rows = self.view.locator(".gallery tbody tr").all()
        return [int(row.get_attribute("data-index") or 0) for row in rows]

    def color(self, selector: str) -> str:
        return str(self.view.locator(selector).evaluate("element => getComputedStyle(element).backgroundColor"))


@pytest.fixture
def opened(browser: Browser, report: Path) -> Iterator[Opened]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    found = Opened(context.new_page(), report)
    yield found
    found.settle()
    assert found.complaints == []
    assert [url for url in found.requests if not url.startswith("data:")] == [report.as_uri()]
    context.close()


def test_it_opens_whole(opened: Opened) -> None:
    assert opened.view.locator("h1").inner_text() == "autoencoder and cgan"
    assert opened.view.locator(".plot canvas").count() > 0
    assert opened.view.locator(".plot").count() == 7  # two scores, speed, two losses, a and b
    loaded = "[...document.querySelectorAll('main img')].every(image => image.complete && image.naturalWidth > 0)"
    assert opened.view.evaluate(loaded)


def test_slider(opened: Opened) -> None:
    slider, tile = opened.view.get_by_label("Size"), opened.view.locator(".gallery img").first
    slider.fill("200")
    assert tile.evaluate("image => image.clientWidth") == 200
    slider.focus()
    opened.view.keyboard.press("ArrowLeft")
    assert tile.evaluate("image => image.clientWidth") == 196


def test_sort(opened: Opened) -> None:
    rows = opened.view.locator(".gallery tbody tr").all()
    between = {int(row.get_attribute("data-index") or 0): float(row.get_attribute("data-between") or 0) for row in rows}
    assert opened.order() == [1, 2, 3, 4]
    opened.view.get_by_role("radio", name="runs differ most").check()
    assert opened.order() == sorted(between, key=lambda index: -between[index])
    opened.view.keyboard.press("ArrowLeft")  # radio buttons, by the keyboard
    assert opened.order() == [1, 2, 3, 4]


def test_a_photograph_in_full_size(opened: Opened) -> None:
    view, viewer = opened.view, opened.view.get_by_role("dialog")
    view.get_by_role("radio", name="furthest from target").check()
    view.get_by_role("button", name="image 2, cgan, seed 1").click()
    number = opened.order().index(2) + 1
    assert viewer.locator("#viewer-position").inner_text() == f"{number} of 4"  # in the order of the page
    runs = [f"{task}, seed {seed}" for task in ("autoencoder", "cgan") for seed in (1, 2)]
    assert viewer.get_by_label("Left").locator("option").all_inner_texts() == ["grey", *runs, "target"]
    assert re.fullmatch(r"Left CIEDE2000 \d+\.\d", viewer.locator("label").first.inner_text().split("\n")[0])
    rendered = viewer.locator("img.left").evaluate("image => getComputedStyle(image).imageRendering")
    assert rendered == "pixelated"  # of 16 pixels
    view.keyboard.press("Escape")
    assert not viewer.is_visible()


def test_theme(opened: Opened) -> None:
    line = "Bokeh.documents[0].roots()[0].renderers.find(each => each.name === 'run-0').glyph.line_color.value"
    light, light_line = opened.color("body"), opened.view.evaluate(line)
    opened.view.get_by_role("radio", name="dark").check()
    dark, dark_line = opened.color("body"), opened.view.evaluate(line)
    assert brightness(light) > 200
    assert brightness(dark) < 60
    assert brightness(dark_line) > brightness(light_line)
    opened.view.get_by_role("radio", name="light").check()
    opened.view.emulate_media(color_scheme="dark")
    assert opened.color("body") == light  # a choice outweighs the system's
    opened.view.get_by_role("radio", name="auto").check()
    assert opened.color("body") == dark


def test_axis_and_zoom(opened: Opened) -> None:
    view, whole = opened.view, opened.view.get_by_role("button", name="Whole range")
    assert 200 <= opened.axis()[1] < 220
    view.get_by_role("radio", name="images").check()
    assert 3200 <= opened.axis()[1] < 3500
    assert not whole.is_visible()
    plot = view.locator("#curves .plot").first
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    assert box is not None
    view.mouse.move(box["x"] + 120, box["y"] + 90)
    view.mouse.down()
    view.mouse.move(box["x"] + 220, box["y"] + 90, steps=4)
    view.mouse.up()
    enlarged = opened.axis()
    assert enlarged[1] - enlarged[0] < 2000
    whole.click()
    assert 3200 <= opened.axis()[1] < 3500


def test_values_under_the_pointer(opened: Opened) -> None:
    plot = opened.view.locator("#curves .plot").first
    plot.scroll_into_view_if_needed()
    plot.hover(position={"x": 300, "y": 60})
    lines = plot.locator(".readout div")
    lines.first.wait_for()
    assert plot.locator(".readout b").inner_text() in ("step 100", "step 200")
    assert {text.split("\n")[0] for text in lines.all_inner_texts()} <= {
        f"{task}, seed {seed}" for task in ("autoencoder", "cgan") for seed in (1, 2)
    }


def test_values_by_the_keyboard(opened: Opened) -> None:
    plot = opened.view.get_by_role("group", name="Chart: CIEDE2000")
    plot.focus()
    opened.view.keyboard.press("End")
    readout = plot.locator(".readout")
    head, *lines = readout.inner_text().split("\n")
    assert head == "step 200"
    assert dict(zip(lines[::2], lines[1::2], strict=True)) == {
        "autoencoder, seed 2": "9.20",
        "autoencoder, seed 1": "9.10",
        "cgan, seed 2": "7.20",
        "cgan, seed 1": "7.10",
    }
    opened.view.keyboard.press("Escape")
    assert not readout.is_visible()


def test_a_run_is_hidden_in_all_charts(opened: Opened) -> None:
    boxes = opened.view.get_by_role("checkbox", name="autoencoder, seed 1")
    boxes.first.uncheck()
    visible = "Bokeh.documents[0].roots().flatMap(f => f.renderers).filter(r => r.name === 'run-0').map(r => r.visible)"
    found = opened.view.evaluate(visible)
    assert len(found) > 5
    assert not any(found)
    assert boxes.count() == 2  # by the curves and by the histograms
    assert not boxes.last.is_checked()


def test_everything_is_reached_by_the_keyboard(opened: Opened) -> None:
    here = "const here = document.activeElement; "
    what = "[[...document.querySelectorAll('*')].indexOf(here), here.tagName + ' ' + (here.name || here.className)]"
    found = {}
    for _ in range(60):
        opened.view.keyboard.press("Tab")
        index, name = opened.view.evaluate(f"() => {{ {here} return {what} }}")
        found[index] = name
    stops = list(found.values())
    wanted = {"INPUT theme", "INPUT axis", "INPUT sort", "BUTTON open", "BUTTON copy", "DIV plot", "DIV scroll", "A "}
    assert wanted <= set(stops)
    assert stops.count("DIV plot") == opened.view.locator(".plot").count()  # one stop each
    assert stops.count("BUTTON open") == 4  # one of each image


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_narrow(browser: Browser, report: Path, scheme: Literal["light", "dark"]) -> None:
    context = browser.new_context(viewport={"width": 400, "height": 800}, color_scheme=scheme)
    opened = Opened(context.new_page(), report)
    assert opened.view.evaluate("document.documentElement.scrollWidth") == 400
    opened.view.get_by_label("Size").fill("320")  # the pictures scroll in their own box
    assert opened.view.evaluate("document.documentElement.scrollWidth") == 400
    sizes = opened.view.evaluate("[...document.querySelectorAll('p, td, li')].map(e => getComputedStyle(e).fontSize)")
    assert min(float(size.removesuffix("px")) for size in sizes) >= 12
    assert opened.complaints == []
    context.close()


def test_hostile_names(browser: Browser, tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)>'\"&"
    settings = {"data.root": "</script><script>alert(2)</script>", "data.source": "folder"}
    run = trained(tmp_path / name, scores={"ciede2000": 7.0}, settings=settings)
    file = tmp_path / "report.html"
    file.write_text(page(compare([run, trained(tmp_path / "b", scores={"ciede2000": 8.0})])))
    context = browser.new_context()
    view = context.new_page()
    alerts: list[str] = []

    def dismiss(dialog: Dialog) -> None:
        alerts.append(dialog.message)
        dialog.dismiss()

    view.on("dialog", dismiss)
    opened = Opened(view, file)
    assert name in opened.view.locator("#runs").inner_text()
    opened.view.locator(".plot").first.hover(position={"x": 200, "y": 60})
    assert alerts == []
    assert opened.complaints == []
    context.close()


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of two programs on photographs of different shapes."""
    folder = tmp_path_factory.mktemp("programs")
    random = np.random.default_rng(0)
    for name in ("photos", "one_program", "<img src=x onerror=alert(1)>"):
        (folder / name / "a_long_folder_name").mkdir(parents=True)
        for number in range(3):
            image = random.integers(0, 256, (80 + 60 * number, 200 - 40 * number, 3), np.uint8)
            Image.fromarray(image).save(folder / name / "a_long_folder_name" / f"photograph_{number}.png")
    answers = [str(folder / "one_program"), str(folder / "<img src=x onerror=alert(1)>")]
    with pytest.MonkeyPatch.context() as patch, alone_on_the_cpu(patch):
        carry_out(["--answers", *answers, "--truth", str(folder / "photos"), "-o", str(folder / "page.html")])
    return folder / "page.html"


@pytest.mark.parametrize("width", [1280, 400])
def test_programs(browser: Browser, programs: Path, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900})
    opened = Opened(context.new_page(), programs)
    view = opened.view
    assert view.evaluate("document.documentElement.scrollWidth") == width
    assert view.locator(".example").count() == 3
    assert view.evaluate(
        "[...document.querySelectorAll('.example img')].every(image => image.complete && image.naturalWidth > 0)"
    )
    shape = "Math.abs(image.clientHeight / image.clientWidth - image.naturalHeight / image.naturalWidth)"
    assert view.evaluate(f"[...document.querySelectorAll('.example img')].every(image => {shape} < 0.02)")
    view.locator(".example img").first.click()
    assert view.locator("#viewer").is_visible()
    assert "<img src=x" in view.locator("#programs").inner_text()
    assert opened.complaints == []
    context.close()


def brightness(color: str) -> float:
    """Of ``rgb(1, 2, 3)``: the mean of the three."""
    return sum(float(part) for part in re.findall(r"[\d.]+", color)[:3]) / 3
