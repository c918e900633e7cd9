"""Hints of a user: files of them, where they land, and what they do."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import config_with
from hypothesis import given
from hypothesis import strategies as st
from photos import SIZE, Space, noise, pixels, snapshot_in
from PIL import Image
from torch import Tensor, nn

import colordist
from colordist.color import AB_SCALE, ColorSpace, srgb_to_lab
from colordist.data.hints import SIDE, hints_of, squares
from colordist.errors import UserError
from colordist.inference.colorizer import Colorizer
from colordist.inference.hints import MOST, Hint, hint_channels, read_hints
from colordist.inference.photo_files import Job, with_hints
from colordist.run.snapshot import Snapshot
from colordist.tasks.autoencoder import AutoencoderTask


class Echo(nn.Module):
    """A network whose colours are those of its hints; elsewhere a and b are 0, or R, G and B the middle grey."""

    def forward(self, image: Tensor) -> Tensor:
        return image[:, 1:-1]


def echo(space: Space = "lab", resolution: int = SIZE) -> Colorizer:
    config = config_with({"task.name": "autoencoder", "task.hints": True, "model.color_space": space})
    task = AutoencoderTask(config.task, config.model)
    networks = nn.ModuleDict({"generator": Echo()})
    return Colorizer(Snapshot(task, networks, {}, Path("echo")), resolution, "bilinear")


def test_colours_are_those_of_css() -> None:
    red = (srgb_to_lab(torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1)).flatten()[1:] / AB_SCALE).tolist()
    for color in ("#ff0000", "#f00", "red", "rgb(255, 0, 0)", "hsl(0, 100%, 50%)"):
        assert Hint(0, 0, color).ab == pytest.approx(red, abs=1e-6)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"x": float("nan")}, "hint: x is nan, but must be a number of pixels"),
        ({"y": "3"}, "hint: y is '3', but must be"),
        ({"x": True}, "hint: x is True, but must be"),
        ({"color": "reddish"}, "hint: color is 'reddish', but must be a colour, as '#2e6da4'"),
        ({"color": "#12345"}, "hint: color is '#12345', but"),
        ({"color": 5}, "hint: color is 5, but"),
        ({"color": ""}, "hint: color is '', but"),
        ({"color": "#ff000080"}, "hint: color is '#ff000080', but"),  # transparent
        ({"color": "rgb(300, 0, 0)"}, r"hint: color is 'rgb\(300, 0, 0\)', but"),
        ({"color": f"rgb({'9' * 400}, 0, 0)"}, r"hint: color is 'rgb\(999.{1,70}, but"),
        ({"x": 10**400}, "hint: x is 10+ .{1,70}, but"),
    ],
)
def test_what_is_no_hint_is_refused(values: dict[str, object], told: str) -> None:
    given: dict[str, object] = {"x": 3, "y": 2.5, "color": "#ff0000"} | values
    with pytest.raises(UserError, match=told):
        Hint(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize("space", ["lab", "rgb"])
def test_hints_of_a_user_are_those_of_training(space: Space) -> None:
    """An image of one colour: its own hints, as in training, are what a user's hints of that colour are."""
    image = torch.tensor([150, 120, 100], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 24, 32)
    grey, target = ColorSpace(space).split(image, torch.float32)
    places = np.array([[[10.5 / 24, 20.5 / 32], [0, 31 / 32]]])
    expected = hints_of(torch.from_numpy(squares(places, np.full((1, 2), SIDE), 24, 32)), target)
    x, y = np.float32(41), np.int64(62)  # of a photo of twice the size
    given = [Hint(x, 21, "#967864"), Hint(y, 0.5, "#967864")]  # type: ignore[arg-type]
    found = hint_channels(ColorSpace(space), [given], [(64, 48)], grey)
    assert torch.equal(found[:, -1], expected[:, -1])
    tolerance = 1e-5 if space == "lab" else 0.02  # rgb: of the grey that is rounded to 8 bits
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


@given(
    width=st.integers(20, 90),
    height=st.integers(20, 90),
    x=st.floats(0, 1, exclude_max=True),
    y=st.floats(0, 1, exclude_max=True),
)
def test_a_hint_colours_the_pixel_that_it_is_at(width: int, height: int, x: float, y: float) -> None:
    photo = Image.new("RGB", (width, height), (120, 120, 120))
    column, row = int(x * width), int(y * height)
    answer = pixels(echo(resolution=32)(photo, hints=[Hint(column, row, "#d02020")]))
    red, green, _ = answer[row, column]
    assert red > green + 60
    far = np.abs(np.indices((height, width)) - np.array([row, column]).reshape(2, 1, 1)).max(0) > 12 * max(
        1, min(width, height) / 32
    )
    assert np.abs(answer[far] - 120).max(initial=0) <= 1


def test_each_photo_has_its_own_hints_upright() -> None:
    """A batch of several shapes. The points are those of the upright photo, as every viewer shows it."""
    photos = [Image.new("RGB", size, (90, 90, 90)) for size in ((30, 20), (30, 20), (20, 40))]
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by 90 degrees
    photos[2].getexif().update(dict(turned))
    hints = [[Hint(2, 3, "blue")], [], [Hint(38, 1, "lime")]]
    answers = [pixels(each) for each in echo().colorize(photos, hints=hints)]
    assert answers[0][3, 2, 2] > answers[0][3, 2, 0] + 60
    assert np.abs(answers[1] - 90).max() <= 1
    assert answers[2].shape == (20, 40, 3)
    assert answers[2][1, 38, 1] > answers[2][1, 38, 0] + 60
    alone = pixels(echo()(photos[0], hints=hints[0]))
    assert np.array_equal(alone, answers[0])


@pytest.mark.parametrize("space", ["lab", "rgb"])
def test_a_colour_beyond_the_gamut_is_what_the_lightness_allows(space: Space) -> None:
    """Yellow on nearly black, in a square of several greys: one colour, as a mean of real pixels is."""
    grey = torch.full((1, 1, 16, 16), -0.9)
    grey[..., ::2] = -0.8
    color, mask = hint_channels(ColorSpace(space), [[Hint(8, 8, "#ffff00")]], [(16, 16)], grey).split(
        [ColorSpace(space).channels, 1], dim=1
    )
    inside = color[(mask == 1).expand_as(color)].view(color.shape[1], -1)
    assert inside.shape[1] == SIDE**2
    assert (inside - inside[:, :1]).abs().max() < 1e-6
    picture = ColorSpace(space).join(grey[..., 8:9, 8:9], inside[:, 0].view(1, -1, 1, 1))
    _, again = ColorSpace(space).split((picture * 255).round().to(torch.uint8), torch.float32)
    assert (again.flatten() - inside[:, 0]).abs().max() < 0.1
    if space == "lab":
        assert inside.abs().max() < 1  # of #ffff00 itself 94 / 40


@pytest.mark.parametrize(
    ("hints", "told"),
    [
        ([[Hint(30, 3, "red")]], "hint: 30, 3 is outside of the photo, which has 30x20 pixels"),
        ([[Hint(3, -0.5, "red")]], "hint: 3, -0.5 is outside of"),
        ([[Hint(1, 1, "red")] * (MOST + 1)], f"there are {MOST + 1} hints, but at most {MOST} for a photo"),
        (["red"], r"hints: they must be a list of Hint for each photo"),
        (Hint(1, 1, "red"), "hints are a Hint, but there are 1 images: give a list for each"),
        ([Hint(1, 1, "red")], r"hints: they must be a list of Hint"),
        ([[], []], "hints are 2 lists, but there are 1 images: give a list for each"),
    ],
)
def test_hints_that_do_not_fit_are_refused(hints: list[list[Hint]], told: str) -> None:
    with pytest.raises(UserError, match=told):
        echo().colorize([Image.new("RGB", (30, 20))], hints=hints)


def test_a_network_without_hints_refuses_them(tmp_path: Path) -> None:
    colorizer = colordist.load(snapshot_in(tmp_path / "step-1"))
    assert not colorizer.takes_hints
    assert colorizer(noise(20, 12), hints=[]).size == (20, 12)
    with pytest.raises(UserError, match=r"^hints: this network takes none: train one with task\.hints true"):
        colorizer(noise(20, 12), hints=[Hint(1, 1, "red")])


def written(tmp_path: Path, content: object) -> Path:
    file = tmp_path / "hints.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


POINT = {"x": 3, "y": 2.5, "color": "#ff0000"}


def test_files_of_one_photo_and_of_several(tmp_path: Path) -> None:
    hint = Hint(3, 2.5, "#ff0000")
    assert read_hints(written(tmp_path, [POINT, POINT])) == {"": [hint, hint]}
    assert read_hints(written(tmp_path, {"a.jpg": [POINT], "in/b.png": []})) == {"a.jpg": [hint], "in/b.png": []}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "it is no JSON"),
        ({"a.jpg": [POINT | {"radius": 5}]}, "radius"),
        ({"a.jpg": [{"x": 3, "color": "red"}]}, "missing required field y"),
        ({"a.jpg": [POINT | {"x": "3"}]}, "x"),
        ({"a.jpg": POINT}, "expected array, got object"),
        ([POINT | {"color": "reddish"}], "color is 'reddish'"),
        ("5", "."),
        ([POINT | {"x": float("inf")}], "x is inf, but must be"),
    ],
)
def test_a_bad_file_is_one_line_that_shows_a_good_one(content: object, told: str, tmp_path: Path) -> None:
    file = written(tmp_path, content)
    with pytest.raises(UserError, match=told) as refusal:
        read_hints(file)
    assert str(refusal.value).startswith(f"--hints {file}: ")
    assert str(refusal.value).endswith('as {"photo.jpg": [{"x": 310, "y": 52, "color": "#2e6da4"}]}')
    assert "\n" not in str(refusal.value)


def test_a_photo_is_named_once_and_exactly_if_need_be() -> None:
    hint, jobs = Hint(1, 1, "red"), [Job(Path("a.jpg"), Path("out/a")), Job(Path("sub/a.jpg"), Path("out/b"))]
    assert [len(job.hints) for job in with_hints(jobs, {"a.jpg": [hint]})] == [1, 0]
    assert [len(job.hints) for job in with_hints(jobs, {str(Path("sub/a.jpg").resolve()): [hint]})] == [0, 1]
    with pytest.raises(UserError, match=r"hints are for a\.jpg under two names: leave one out"):
        with_hints(jobs, {"./a.jpg": [hint], "a.jpg": []})


def test_no_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^--hints .*none\.json: there is no such file$"):
        read_hints(tmp_path / "none.json")


JOBS = [Job(Path(name), Path("out") / name) for name in ("in/a.jpg", "in/sub/a.jpg", "in/ba.jpg")]


def test_photos_are_named_by_the_end_of_their_path() -> None:
    hint = Hint(1, 1, "red")
    found = with_hints(JOBS, {"sub/a.jpg": [hint], "ba.jpg": [hint, hint]})
    assert [job.photo for job in found] == [job.photo for job in JOBS]
    assert [len(job.hints) for job in found] == [0, 1, 2]
    assert with_hints(JOBS[:1], {"": [hint]})[0].hints == (hint,)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("a.jpg", "hints are for a.jpg, the name of 2 of the 3 photos: name each one"),
        ("c.jpg", "hints are for c.jpg, the name of no photo: name each"),
        ("", "hints name no photo, and may be those of 3 of the 3 photos"),
    ],
)
def test_a_name_that_is_not_that_of_one_photo_is_refused(name: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        with_hints(JOBS, {name: []})
