"""The page of ``colordist demo`` in a real browser: results, several visitors, mistakes, keyboard, small screens."""

import json
import signal
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from photos import noise, snapshot_in
from PIL import Image
from verbs import call_main

pytest.importorskip("playwright", reason="needs playwright: pip install playwright")
pytest.importorskip("gradio", reason="needs gradio: pip install 'colordist[demo]'")
from demo_server import DONE, Server, Visitor, serving
from playwright.sync_api import Browser, expect

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With three answers to each photo, and colour hints."""
    return snapshot_in(tmp_path_factory.mktemp("model") / "tiny", noise=3, hints=True)


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server"), model, end=signal.SIGINT) as found:
        yield found
        assert found.said() == ""


@pytest.fixture(scope="module")
def narrow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with narrow limits, and a model without variants and hints."""
    model = snapshot_in(tmp_path_factory.mktemp("model") / "plain")
    options = ("--queue", "1", "--max_megabytes", "1", "--max_files", "3")
    with serving(tmp_path_factory.mktemp("narrow"), model, *options, end=signal.SIGTERM) as found:
        yield found
        assert all(line.startswith("a request failed: ") for line in found.said().splitlines())


@pytest.fixture
def visitor(browser: Browser, server: Server) -> Iterator[Visitor]:
    found = Visitor(browser, server.url)
    yield found
    found.leave()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three photos of 12 megapixels."""
    gradient = Image.linear_gradient("L").resize((4000, 3000))
    image = Image.merge("RGB", [gradient, gradient.transpose(Image.Transpose.ROTATE_180), gradient])
    files = [tmp_path_factory.mktemp("large") / f"large-{number}.jpg" for number in range(3)]
    for file in files:
        image.save(file)
    return files


def photo(file: Path, seed: int = 0, size: tuple[int, int] = (90, 60)) -> Path:
    file.parent.mkdir(exist_ok=True)
    noise(*size, seed=seed).save(file)
    return file


def colorized(model: Path, folder: Path, *arguments: object) -> dict[str, bytes]:
    """The files that ``colordist colorize`` writes, by name."""
    with pytest.MonkeyPatch.context() as patch:
        assert call_main(patch, "colorize", str(model), *map(str, arguments), "-o", str(folder)) == 0
    return {file.name: file.read_bytes() for file in folder.iterdir()}


# --- results


def test_the_download_is_the_file_that_colorize_writes(visitor: Visitor, model: Path, tmp_path: Path) -> None:
    file = photo(tmp_path / "a photo.jpg")
    visitor.color(file)
    found = visitor.download(tmp_path / "found")
    assert {found.name: found.read_bytes()} == colorized(model, tmp_path / "expected", file)
    images = visitor.view.locator("#slider img")
    assert [each.get_attribute("alt") for each in images.all()] == ["Grey photograph", "Coloured photograph"]
    for each in images.all():
        expect(each).to_have_js_property("naturalWidth", 90)


def test_settings_are_those_of_colorize(visitor: Visitor, model: Path, tmp_path: Path) -> None:
    file, view = photo(tmp_path / "a.png"), visitor.view
    view.get_by_role("button", name="More settings").click()
    visitor.color(file)
    view.get_by_label("number input for Saturation").fill("0.5")
    view.get_by_label("number input for Answers").fill("2")
    view.get_by_label("Resolution").fill("24")
    view.get_by_role("radio", name="bilinear").check()
    view.get_by_role("radio", name="webp").check()
    visitor.again()
    options = ["--saturation", 0.5, "--variants", 2, "--resolution", 24, "--upsample", "bilinear", "--format", "webp"]
    expected = colorized(model, tmp_path / "expected", file, *options)
    first = visitor.download(tmp_path / "found")
    view.get_by_label("Result shown").click()
    view.get_by_role("option", name="a-2.webp").click()
    expect(view.locator("#download")).to_have_text("Download a-2.webp")
    second = visitor.download(tmp_path / "found")
    assert {each.name: each.read_bytes() for each in (first, second)} == expected


def test_several_photos_of_which_some_are_none(visitor: Visitor, model: Path, tmp_path: Path) -> None:
    good = [photo(tmp_path / f"{name}", seed=seed) for seed, name in enumerate(["a.png", "b.v2.jpg", "ü.webp"])]
    bad = tmp_path / "<b>bad.jpg"
    bad.write_text("no photo")
    twin = photo(tmp_path / "a.jpg")
    visitor.color(good[0], bad, twin, *good[1:], summary="3 of 5 photographs are coloured.")
    visitor.sees("<b>bad.jpg: not a readable image")
    visitor.sees("a.jpg: its result would be named a.png, too: colour it on its own")
    with zipfile.ZipFile(visitor.download(tmp_path / "found", "#download_all")) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    expected: dict[str, bytes] = {}
    for file in good:
        expected |= colorized(model, tmp_path / f"expected-{file.stem}", file)
    assert found == expected


def test_visitors_get_their_own_photos(browser: Browser, server: Server, model: Path, tmp_path: Path) -> None:
    visitors = [Visitor(browser, server.url) for _ in range(2)]
    files = [photo(tmp_path / str(number) / "a.png", seed=number) for number in range(2)]
    for visitor, file in zip(visitors, files, strict=True):
        visitor.upload(file)
    for number, visitor in enumerate(visitors):
        visitor.sees("1 of 1 photographs is coloured.")
        expected = colorized(model, tmp_path / f"expected-{number}", files[number])
        assert visitor.download(tmp_path / f"found-{number}").read_bytes() == expected["a.png"]
        visitor.leave()


def test_12_megapixels(visitor: Visitor, large: list[Path], tmp_path: Path) -> None:
    visitor.color(large[0])
    with Image.open(visitor.download(tmp_path / "found")) as picture:
        assert picture.size == (4000, 3000)
    expect(visitor.view.locator("#slider img").last).to_have_js_property("naturalWidth", 1600)


def test_reloading_in_the_middle(browser: Browser, server: Server, large: list[Path], tmp_path: Path) -> None:
    visitor = Visitor(browser, server.url)
    visitor.upload(*large)
    visitor.sees("Colouring large-0.jpg")
    visitor.open()
    expect(visitor.view.locator("#status")).to_have_text("")
    visitor.color(photo(tmp_path / "a.png"))
    visitor.view.context.close()


def test_ending_in_the_middle(browser: Browser, model: Path, large: list[Path], tmp_path: Path) -> None:
    with serving(tmp_path, model, end=signal.SIGINT) as server:
        visitor = Visitor(browser, server.url)
        visitor.upload(*large)
        visitor.sees("Colouring large-0.jpg")
    assert server.said() == ""
    visitor.view.context.close()


# --- colour hints


ROWS = "#hint_table [role=row][data-index]"


def hint_rows(visitor: Visitor) -> list[list[str]]:
    rows = visitor.view.locator(ROWS).all()
    return [[cell.inner_text().strip() for cell in row.get_by_role("gridcell").all()] for row in rows]


def test_hints_are_those_of_colorize(visitor: Visitor, model: Path, tmp_path: Path) -> None:
    files, view = [photo(tmp_path / "a.png", size=(90, 60)), photo(tmp_path / "b.png", 1)], visitor.view
    visitor.color(*files)
    view.get_by_label("Colour of the point").wait_for()
    view.locator("#hint_x input").fill("30.5")
    view.locator("#hint_y input").fill("20")
    view.get_by_role("button", name="Add point").click()
    expect(view.locator(ROWS)).to_have_count(1)
    image = view.locator("#hint_photo img")
    expect(image).to_have_js_property("naturalWidth", 90)
    box = image.bounding_box()
    assert box is not None
    image.click(position={"x": box["width"] * 0.75, "y": box["height"] * 0.25})
    expect(view.locator(ROWS)).to_have_count(2)
    x, y = map(float, hint_rows(visitor)[1][:2])
    assert abs(x - 67.5) < 2
    assert abs(y - 15) < 2
    view.get_by_role("button", name="Remove the last point").click()
    expect(view.locator(ROWS)).to_have_count(1)
    visitor.again()
    hints = tmp_path / "hints.json"
    hints.write_text(json.dumps([{"x": 30.5, "y": 20, "color": "#2e6da4"}]))
    found = visitor.download(tmp_path / "found")
    expected = colorized(model, tmp_path / "expected", files[0], "--hints", hints)
    assert found.read_bytes() == expected["a.png"]
    assert expected != colorized(model, tmp_path / "without", files[0])
    view.get_by_label("Result shown").click()
    view.get_by_role("option", name="b.png").click()  # which has no points
    expect(view.locator("#download")).to_have_text("Download b.png")
    assert visitor.download(tmp_path / "found").read_bytes() == colorized(model, tmp_path / "b", files[1])["b.png"]


def test_a_point_outside_of_the_photo_is_one_line(visitor: Visitor, tmp_path: Path) -> None:
    visitor.color(photo(tmp_path / "a.png"))
    visitor.view.locator("#hint_x input").fill("91")
    visitor.view.get_by_role("button", name="Add point").click()
    expect(visitor.view.locator(ROWS)).to_have_count(1)
    visitor.again()
    visitor.sees("a.png: hint: 91, 0 is outside of the photo, which has 90x60 pixels")


# --- everybody


def test_by_keyboard(visitor: Visitor, tmp_path: Path) -> None:
    view, keyboard = visitor.view, visitor.view.keyboard

    def tab_to(selector: str) -> None:
        for _ in range(40):
            keyboard.press("Tab")
            if view.evaluate("selector => document.activeElement.matches(selector)", selector):
                outline = view.evaluate("getComputedStyle(document.activeElement).outlineStyle")
                assert outline != "none", selector
                return
        raise AssertionError(f"{selector} isn't reached by the keyboard")

    tab_to("#photos button")
    with view.expect_file_chooser() as chooser:
        keyboard.press("Enter")
    chooser.value.set_files([photo(tmp_path / "a.png"), photo(tmp_path / "b.png", 1)])
    visitor.sees("2 of 2 photographs are coloured.")
    view.evaluate("document.activeElement.blur()")
    tab_to("input[type=range]")
    keyboard.press("ArrowRight")
    expect(view.get_by_label("number input for Saturation")).to_have_value("1.05")
    tab_to("#start")
    visitor.forget()
    keyboard.press("Enter")
    visitor.sees("Colouring a.png")
    visitor.sees("2 of 2 photographs are coloured.")
    tab_to("#shown input")
    keyboard.press("ArrowDown")
    keyboard.press("Enter")
    expect(view.locator("#download")).to_have_text("Download b.png")
    tab_to("#divider input[type=range]")
    keyboard.press("End")
    handle = view.locator("#slider [data-testid=slider]")
    expect(handle).to_be_visible()
    view.wait_for_function(
        "() => { const box = (name) => document.querySelector(name).getBoundingClientRect();"
        " return box('#slider [data-testid=slider]').left > box('#slider').right - 60; }"
    )
    tab_to("#download")
    with view.expect_download(timeout=DONE) as found:
        keyboard.press("Enter")
    assert found.value.suggested_filename == "b.png"


def test_a_screen_reader_gets_names_and_messages(visitor: Visitor, tmp_path: Path) -> None:
    view = visitor.view
    assert view.locator("html").get_attribute("lang") == "en"
    assert view.locator("h1").all_inner_texts() == ["Colour photographs"]
    view.get_by_role("button", name="More settings").click()
    view.get_by_label("Resolution").wait_for()
    controls = [*visitor.names()]
    visitor.color(photo(tmp_path / "a.png"), photo(tmp_path / "b.png"))
    for control, name in [*controls, *visitor.names()]:
        assert name.strip(), control
        assert not name.startswith("common."), control
    assert view.locator("#status[role=status][aria-live=polite]").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_narrow(browser: Browser, server: Server, scheme: Literal["light", "dark"], tmp_path: Path) -> None:
    visitor = Visitor(browser, server.url, 400, scheme)
    visitor.view.get_by_role("button", name="More settings").click()
    name = "a_photograph_with_a_name_that_is_far_too_long_for_a_narrow_screen"
    bad = tmp_path / f"{name}.bad.jpg"
    bad.write_text("no photo")
    visitor.color(photo(tmp_path / f"{name}.png"), photo(tmp_path / "b.png"), bad, summary="2 of 3")
    expect(visitor.view.locator("#download_all")).to_be_visible()
    assert visitor.view.evaluate("document.documentElement.scrollWidth") == 400
    text = visitor.view.locator("h1").evaluate("element => getComputedStyle(element).color")
    brightness = sum(map(float, text.removeprefix("rgb(").removesuffix(")").split(","))) / 3
    assert (brightness > 128) == (scheme == "dark")
    visitor.leave()


# --- limits and strangers


def test_too_much_is_one_line(browser: Browser, narrow_server: Server, tmp_path: Path) -> None:
    visitor, heavy = Visitor(browser, narrow_server.url), tmp_path / "heavy.png"
    heavy.write_bytes(bytes(2**20 + 1))
    visitor.upload(heavy)
    alert = visitor.view.locator(".toast-wrap[aria-live=assertive]")
    expect(alert).to_contain_text('exceed the maximum allowed size of 1.0 Mb: "heavy.png"')
    visitor.upload(*[photo(tmp_path / f"{number}.png", size=(20, 20)) for number in range(4)])
    visitor.sees("4 photographs are more than 3: choose fewer at a time")
    assert visitor.view.get_by_label("Answers per photograph").count() == 0
    assert visitor.view.get_by_role("button", name="Add point").count() == 0
    visitor.leave()


def test_a_full_queue_is_one_line(browser: Browser, narrow_server: Server, large: list[Path], tmp_path: Path) -> None:
    visitors, small = [Visitor(browser, narrow_server.url) for _ in range(3)], photo(tmp_path / "a.png")
    visitors[0].upload(*large)
    visitors[0].sees("Colouring large-0.jpg")
    visitors[1].upload(small)
    expect(visitors[1].view.locator("#slider")).to_contain_text("queue: 1/1")
    visitors[2].upload(small)
    expect(visitors[2].view.locator(".toast-wrap[aria-live=assertive]")).to_contain_text("currently busy")
    visitors[1].sees("1 of 1 photographs is coloured.")
    visitors[0].sees("3 of 3 photographs are coloured.")
    for visitor in visitors:
        visitor.view.context.close()


def answer(url: str, body: object = None) -> tuple[int, bytes]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def outcome(url: str, session: str, inputs: object, number: int = 0) -> str:
    """What the queue says about a request that no page would make."""
    body = {"fn_index": number, "data": inputs, "session_hash": session}
    assert answer(f"{url}/gradio_api/queue/join", body)[0] == 200
    return answer(f"{url}/gradio_api/queue/data?session_hash={session}")[1].decode()


def file_of(path: object) -> dict[str, Any]:
    return {"path": str(path), "orig_name": "../../a.png", "meta": {"_type": "gradio.FileData"}}


def test_strangers_get_no_other_files_and_no_traceback(narrow_server: Server, tmp_path: Path) -> None:
    url, mine = narrow_server.url, photo(tmp_path / "private.png")
    settings = [None, None, None, {"data": [], "headers": ["x", "y", "colour"]}, 16, "guided", 1, "png", 1, 0]
    for number, path in enumerate([mine, "/etc/passwd", "http://127.0.0.1:1/a.png", "../../../etc/passwd"]):
        said = outcome(url, f"file-{number}", [[file_of(path)], *settings])
        assert "1 of 1" not in said
        assert "is coloured" not in said
        assert '"success":false' in said
    for number, inputs in enumerate([[], ["x"], [[], *[None] * 10], [[{}], *settings]]):
        assert '"success":false' in outcome(url, f"junk-{number}", inputs)
    for path in (
        f"file={mine}",
        "file=https://example.com/a",
        "file=https:/example.com/a",
        "proxy=https://example.com",
    ):
        assert answer(f"{url}/gradio_api/{path}")[0] == 403
    assert "Traceback" not in narrow_server.said()
