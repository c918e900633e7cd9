"""What becomes of uploads, without a page: results as of ``colorize``, limits, names, and folders that go again."""

import os
import threading
import zipfile
from pathlib import Path

import pytest
from photos import noise, snapshot_in
from PIL import Image

import colordist
from colordist.errors import RunError, UserError
from colordist.inference.photo_files import save
from colordist.serving.service import LIFETIME, Choices, Limits, Outcome, Service, Upload, pack, safe_name


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(colordist.load(snapshot_in(tmp_path / "model", noise=3)), tmp_path / "results", Limits(1, 3))


def upload(folder: Path, name: str, seed: int = 0) -> Upload:
    file = folder / f"upload-{len(list(folder.iterdir()))}"
    noise(40, 30, seed=seed).save(file, "PNG")
    return Upload(file, name)


def outcomes(service: Service, *uploads: Upload, **choices: object) -> list[Outcome]:
    request = service.new_request()
    return list(service.color(uploads, Choices(**choices), request))  # type: ignore[arg-type]


def test_results_are_those_of_the_colorizer(service: Service, tmp_path: Path) -> None:
    photo = upload(tmp_path, "a.b.JPG")
    (outcome,) = outcomes(service, photo, variants=2, saturation=0.5, resolution=24, upsample="bilinear", format="jpg")
    assert [each.file.name for each in outcome.pictures] == ["a.b-1.jpg", "a.b-2.jpg"]
    colorizer = colordist.load(tmp_path / "model", 24, "bilinear", saturation=0.5)
    for variant, picture in enumerate(outcome.pictures):
        save(colorizer(Image.open(photo.file), variant=variant), tmp_path / "expected.jpg")
        assert picture.file.read_bytes() == (tmp_path / "expected.jpg").read_bytes()
        with Image.open(picture.before) as before, Image.open(picture.after) as after:
            assert before.size == after.size == (40, 30)
            assert (before.mode, after.mode) == ("L", "RGB")
    with zipfile.ZipFile(pack(outcome.pictures, tmp_path / "all.zip")) as archive:
        assert archive.namelist() == ["a.b-1.jpg", "a.b-2.jpg"]
        assert archive.read("a.b-2.jpg") == outcome.pictures[1].file.read_bytes()


def test_what_can_not_be_coloured_is_said_and_the_others_come(service: Service, tmp_path: Path) -> None:
    good, twin, bad = upload(tmp_path, "a.png"), upload(tmp_path, "a.jpg"), upload(tmp_path, "bad.png")
    bad.file.write_text("no photo")
    found = outcomes(service, bad, good, good, twin)  # one was chosen twice
    assert [(each.name, len(each.pictures), each.problem) for each in found] == [
        ("bad.png", 0, "not a readable image"),
        ("a.png", 1, ""),
        ("a.jpg", 0, "its result would be named a.png, too: colour it on its own"),
    ]
    bad.file.write_bytes(bytes(2**20 + 1))
    good.file.unlink()
    assert [each.problem for each in outcomes(service, bad, good)] == [
        "it has 1 MB, more than 1: make it smaller",
        "it was removed in the meantime: choose it again",
    ]


def test_a_result_that_can_not_be_written_names_no_folder(service: Service, tmp_path: Path) -> None:
    file = tmp_path / "long.png"
    Image.new("L", (17_000, 8)).save(file)
    (outcome,) = outcomes(service, Upload(file, "long.png"), format="webp")
    assert outcome.problem.startswith("long.webp can't be written: ")
    assert str(tmp_path) not in outcome.problem


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"variants": 4}, "variants is 4, but must be at most 3: try variants 3"),
        ({"variants": 0}, "variants is 0"),
        ({"variants": 1.5}, "variants is 1.5, but must be a whole number"),
        ({"seed": 2**64}, "seed is"),
        ({"resolution": 2000}, "resolution is 2000, but must be at most 1024"),
        ({"resolution": 4}, "resolution is 4, but this network needs at least 8: try 8"),
        ({"saturation": 4}, "saturation is 4.0"),
        ({"upsample": "nearest"}, "upsample is 'nearest'"),
        ({"format": "../a"}, "format is ../a, but must be one of png, jpg, webp"),
    ],
)
def test_choices_out_of_range_are_one_line(
    choices: dict[str, object], words: str, service: Service, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        outcomes(service, upload(tmp_path, "a.png"), **choices)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_too_many_files(service: Service, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="4 photographs are more than 3: choose fewer at a time"):
        outcomes(service, *[upload(tmp_path, f"{number}.png") for number in range(4)])


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("a photo.jpg", "a photo.jpg"),
        ("../../etc/a.png", "a.png"),
        (r"C:\photos\a.png", "a.png"),
        ("a\nb\0.png", "a?b?.png"),
        ("\ud800.png", "?.png"),
        ("..", "photo"),
        ("", "photo"),
        (".png", ".png"),
        ("x" * 300 + ".png", "x" * 160 + ".png"),
    ],
)
def test_names(name: str, safe: str) -> None:
    assert safe_name(name) == safe


def test_long_names_of_letters_of_several_bytes_fit(service: Service, tmp_path: Path) -> None:
    (outcome,) = outcomes(service, upload(tmp_path, safe_name("\U0001f600" * 300 + ".png")))
    assert outcome.problem == ""


def test_folders_go_after_an_hour_or_with_the_next_request_of_a_visitor(service: Service) -> None:
    old, last, others = (service.new_request() for _ in range(3))
    long_ago = old.stat().st_mtime - LIFETIME - 1
    os.utime(old, (long_ago, long_ago))
    new = service.new_request(last)
    assert [each.exists() for each in (old, last, others, new)] == [False, False, True, True]
    assert len({old.name, last.name, others.name, new.name}) == 4


def test_closing_waits_for_the_photo_and_takes_no_other(service: Service, tmp_path: Path) -> None:
    uploads = [upload(tmp_path, f"{number}.png") for number in range(2)]
    request = service.new_request()
    running = service.color(uploads, Choices(), request)
    assert next(running).problem == ""
    closing = threading.Thread(target=service.close)
    closing.start()
    closing.join()
    with pytest.raises(RunError, match="the server is being stopped"):
        next(running)
    assert not (request / "1.png").exists()
