"""Colouring files: what is found, what it is called, what is never lost, and what the exit code says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from image_corpus import SEE_THROUGH, USABLE, USELESS
from photos import noise, pixels, snapshot_in
from PIL import Image, ImageOps

import colordist
from colordist import cli, colorize
from colordist.inference.colorizer import read_photo
from colordist.inference.hints import Hint
from colordist.inference.photo_files import find_photos, save, side_by_side_image

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    snapshot_in(run / "snapshots" / "step-000001")
    return run


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def photo(path: str, level: int = 100, size: tuple[int, int] = (20, 12)) -> Path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level, 0, 200)).save(path)
    return Path(path)


def call(monkeypatch: pytest.MonkeyPatch, run: Path, *arguments: str) -> int:
    """The exit code of the verb."""
    monkeypatch.setattr(sys, "argv", ["colordist colorize", str(run), *arguments])
    try:
        colorize.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def found(out: str = "out") -> list[str]:
    return sorted(path.relative_to(out).as_posix() for path in Path(out).rglob("*") if path.is_file())


def test_folders_keep_their_inside(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("in/a.jpg", "in/sub/b.v2.PNG", "in/sub/deep/c.webp", "in/.hidden.jpg", "in/.thumbs/d.jpg", "e.bmp"):
        photo(name)
    Path("in/notes.txt").write_text("no photo")
    assert call(monkeypatch, run_folder, "in", "e.bmp", "-o", "out/new") == 0
    assert found() == ["new/a.png", "new/e.png", "new/sub/b.v2.png", "new/sub/deep/c.png"]
    shown = capsys.readouterr()
    assert shown.out == "coloured 4 of 4 photos: out/new\n"
    assert shown.err == ""
    for name in found():
        with Image.open(f"out/{name}") as picture:
            assert picture.size == (20, 12)
            assert picture.mode == "RGB"


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("in/*.jpg", ["a.png"]),
        ("in/*", ["[x].png", "a.png"]),
        ("in/**", ["[x].png", "a.png", "sub/b.png"]),
        ("in/**/*.png", ["[x].png", "sub/b.png"]),
        ("i?/su[ab]/b.png", ["in/sub/b.png"]),
        ("in/[x].png", ["[x].png"]),
    ],
)
def test_patterns(pattern: str, names: list[str]) -> None:
    for name in ("in/a.jpg", "in/sub/b.png", "in/[x].png"):
        photo(name)
    assert sorted(str(job.target) for job in find_photos([pattern], Path("out"), ".png")) == [f"out/{n}" for n in names]


def test_home_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    photo("in/a.jpg")
    monkeypatch.setenv("HOME", os.getcwd())
    assert len(find_photos(["~/in", "~/in/*.jpg"], Path("out"), ".png")) == 1


names = st.lists(st.text("ab. -é", min_size=1, max_size=6).filter(lambda name: name[0] != "."), min_size=1, max_size=6)


@given(names=names, sizes=st.lists(st.tuples(st.integers(8, 60), st.integers(8, 60)), min_size=6, max_size=6))
@settings(max_examples=30)
def test_names_and_sizes_are_kept(
    names: list[str], sizes: list[tuple[int, int]], run_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("names")
    expected = dict(zip(names, sizes, strict=False))
    for name, size in expected.items():
        photo(str(root / "in" / f"{name}.png"), size=size)
    with pytest.MonkeyPatch.context() as patch:
        assert call(patch, run_folder, str(root / "in"), "-o", str(root / "out")) == 0
    got = {path.name.removesuffix(".png"): Image.open(path).size for path in (root / "out").iterdir()}
    assert got == expected


def test_results_are_not_colored_again(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo("in/a.jpg")
    for arguments in (["in"], ["in", "--overwrite"], ["in/**/*.*", "--overwrite"]):
        assert call(monkeypatch, run_folder, *arguments, "-o", "in/out") == 0
    assert found("in") == ["a.jpg", "out/a.png"]
    assert call(monkeypatch, run_folder, "in/out", "-o", "in/again") == 0  # unless asked for


def test_nothing_is_overwritten_unasked(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photo("in/a.jpg"), photo("in/b.jpg")
    photo("out/a.png", size=(9, 9))
    before = Path("out/a.png").read_bytes()
    assert call(monkeypatch, run_folder, "in", "-o", "out") == 1
    assert Path("out/a.png").read_bytes() == before
    assert found() == ["a.png", "b.png"]
    assert capsys.readouterr().err.splitlines() == [
        "colordist: skipped in/a.jpg: out/a.png exists: give --overwrite, or another -o",
        "colordist: coloured 1 of 2 photos: out; see above for the others",
    ]
    assert call(monkeypatch, run_folder, "in", "-o", "out", "--overwrite") == 0
    assert Image.open("out/a.png").size == (20, 12)


def test_two_photos_of_one_name(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photo("in/a.jpg", size=(20, 20)), photo("in/a.png", size=(30, 30)), photo("more/a.jpg", size=(40, 40))
    assert call(monkeypatch, run_folder, "in", "in/a.jpg", "more/a.jpg", "-o", "out", "--overwrite") == 1
    assert found() == ["a.png"]
    assert Image.open("out/a.png").size == (20, 20)
    lines = capsys.readouterr().err.splitlines()
    assert (
        lines[0] == "colordist: skipped in/a.png: out/a.png is the name for in/a.jpg already: colour it with another -o"
    )
    assert "more/a.jpg" in lines[1]
    assert "coloured 1 of 3" in lines[2]


def test_a_photo_is_never_replaced(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo("in/a.png"), photo("in/b.jpg")
    Path("link").symlink_to("in")
    before = Path("in/a.png").read_bytes()
    assert call(monkeypatch, run_folder, "in", "-o", "link", "--overwrite") == 1
    assert Path("in/a.png").read_bytes() == before
    assert found("in") == ["a.png", "b.jpg", "b.png"]


@pytest.mark.filterwarnings("ignore")
def test_every_odd_file(run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for group, files in (("usable", USABLE), ("useless", USELESS)):
        for name, (content, _) in files.items():
            path = Path("in", group, name, name)  # many have the same stem
            path.parent.mkdir(parents=True)
            path.write_bytes(content)
    assert call(monkeypatch, run_folder, "in", "-o", "out") == 1
    assert len(found()) == len(USABLE)
    assert all(name.startswith("usable/") for name in found())
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(USELESS) + 1
    for name, (_, reason) in USELESS.items():
        assert f"colordist: skipped in/useless/{name}/{name}: {reason}" in lines
    for name in USABLE:
        with Image.open(Path("out/usable", name, Path(name).stem + ".png")) as picture:
            assert picture.size == ((8, 8) if name == "min_side.png" else (48, 32)), name
            assert not picture.getexif()
            assert "icc_profile" not in picture.info


def test_all_bad(run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    Path("in").mkdir()
    Path("in/a\nb.jpg").write_bytes(b"x")
    Path("in/link.jpg").symlink_to("nowhere")
    Path("in/loop.jpg").symlink_to("loop.jpg")
    assert call(monkeypatch, run_folder, "in", "in/a\nb.jpg", "-o", "out") == 1
    assert found() == []
    assert capsys.readouterr().err.splitlines() == [
        "colordist: skipped in/a?b.jpg: not a readable image",
        "colordist: skipped in/link.jpg: unreadable",
        "colordist: skipped in/loop.jpg: unreadable",
        "colordist: coloured 0 of 3 photos: out; see above for the others",
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.jpg", "-o", "out"], "no photo found at nowhere.jpg"),
        (["a.jpg", "*.gif", "-o", "out"], "no photo found at *.gif"),
        (["empty", "-o", "out"], "no photo found at empty"),
        (["a.jpg", "-o", "a.jpg"], "name another"),
        (["a.jpg", "-o", "out", "--batch_size", "0"], "try --batch_size 1"),
        (["a.jpg", "-o", "out", "--resolution", "4"], "try 8"),
    ],
)
def test_mistakes(
    arguments: list[str],
    words: str,
    run_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    photo("a.jpg")
    Path("empty").mkdir()
    assert call(monkeypatch, run_folder, *arguments) == 2
    message = capsys.readouterr().err
    assert words in message
    assert message.count("\n") == 1
    assert not Path("out").exists()


def test_no_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    photo("a.jpg")
    assert call(monkeypatch, Path("nowhere"), "a.jpg", "-o", "out") == 2
    assert capsys.readouterr().err == (
        "colordist: there is no folder nowhere: give the folder of a run, or of a snapshot, or a bundled model's name: "
        "photos-hints, photos-small\n"
    )


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_formats(suffix: str, run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SEE_THROUGH.save("a.png")
    assert call(monkeypatch, run_folder, "a.png", "-o", "out", "--format", suffix) == 0
    assert found() == [f"a.{suffix}"]
    picture = Image.open(f"out/a.{suffix}")
    assert picture.format == {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}[suffix]
    if suffix == "jpg":
        assert picture.mode == "RGB"
        assert np.abs(pixels(picture)[24:, 4:20] - 255).max() <= 4  # the transparent quarter
    else:
        np.testing.assert_array_equal(pixels(picture)[..., 3], pixels(SEE_THROUGH)[..., 3])


def test_upsample(run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    noise(60, 40).save("a.png")
    for method in ("guided", "bilinear"):
        assert call(monkeypatch, run_folder, "a.png", "-o", method, "--upsample", method) == 0
        expected = colordist.load(run_folder, upsample=method)(noise(60, 40))
        np.testing.assert_array_equal(pixels(Image.open(f"{method}/a.png")), pixels(expected))
    assert call(monkeypatch, run_folder, "a.png", "-o", "out") == 0
    assert Path("out/a.png").read_bytes() == Path("guided/a.png").read_bytes()
    assert call(monkeypatch, run_folder, "a.png", "-o", "out", "--upsample", "nearest") == 2
    assert "choose from guided, bilinear" in capsys.readouterr().err.replace("'", "")
    assert call(monkeypatch, run_folder, "--help") == 0
    assert "--upsample {guided,bilinear}" in capsys.readouterr().out


def test_saturation(run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    noise(60, 40).save("a.png")
    assert call(monkeypatch, run_folder, "a.png", "-o", "out", "--saturation", "0.5") == 0
    expected = colordist.load(run_folder, saturation=0.5)(noise(60, 40))
    np.testing.assert_array_equal(pixels(Image.open("out/a.png")), pixels(expected))
    assert call(monkeypatch, run_folder, "a.png", "-o", "more", "--saturation", "3.5") == 2
    assert "saturation is 3.5, but must lie in [0.0, 3.0]: try saturation 3.0" in capsys.readouterr().err
    assert not Path("more").exists()


def test_side_by_side(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SEE_THROUGH.save("a.png")
    assert call(monkeypatch, run_folder, "a.png", "-o", "out", "--side_by_side") == 0
    pair = Image.open("out/a.png")
    assert pair.size == (96, 32)
    assert pair.mode == "RGB"
    left, right = pixels(pair)[:, :48], pixels(pair)[:, 48:]
    assert (left == left[..., :1]).all()
    assert np.ptp(right, axis=-1).max() > 20
    assert (left[20, 10] == 255).all()
    assert (right[20, 10] == 255).all()


def test_orientation(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tags = Image.Exif()
    tags[0x0112] = 6
    noise(40, 24).save("a.png", exif=tags)
    assert call(monkeypatch, run_folder, "a.png", "-o", "out") == 0
    picture = Image.open("out/a.png")
    assert picture.size == (24, 40)
    expected = colordist.load(run_folder)(ImageOps.exif_transpose(Image.open("a.png")))
    np.testing.assert_array_equal(pixels(picture), pixels(expected))


def test_batches_do_not_matter(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        Path("in").mkdir(exist_ok=True)
        noise(40 + 10 * (number % 2), 30, seed=number).save(f"in/{number}.png")
    for size in ("1", "2", "8"):
        assert call(monkeypatch, run_folder, "in", "-o", size, "--batch_size", size) == 0
    for number in range(5):
        one, two, eight = (pixels(Image.open(f"{size}/{number}.png")) for size in (1, 2, 8))
        assert max(np.abs(one - two).max(), np.abs(one - eight).max()) <= 1


def test_half_a_file_is_never_there(monkeypatch: pytest.MonkeyPatch) -> None:
    photo("out/a.png")
    before = Path("out/a.png").read_bytes()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save(Image.new("RGB", (50, 50)), Path("out/a.png"))
    assert Path("out/a.png").read_bytes() == before
    assert found() == ["a.png"]


def test_what_can_not_be_written_is_reported(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photo("in/a.jpg"), photo("in/long.jpg", size=(17_000, 8)), photo("in/sub/b.jpg")
    Path("out").mkdir()
    Path("out/sub").write_text("no folder")
    assert call(monkeypatch, run_folder, "in", "-o", "out", "--format", "webp") == 1
    assert found() == ["a.webp", "sub"]
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1] for line in lines[:2]] == ["skipped in/long.jpg", "skipped in/sub/b.jpg"]
    assert all("can't be written" in line for line in lines[:2])
    assert len(lines) == 3


def test_interrupted(run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    photo("a.jpg")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("colordist.inference.photo_files.save", interrupt)
    assert call(monkeypatch, run_folder, "a.jpg", "-o", "out") == 1
    assert "the same command does the rest" in capsys.readouterr().err


def test_beside_is_the_photo_and_its_picture() -> None:
    seen = read_photo(noise(30, 20))
    pair = side_by_side_image(seen, noise(30, 20, seed=1))
    np.testing.assert_array_equal(pixels(pair)[:, :30, 0], pixels(seen.grey))
    np.testing.assert_array_equal(pixels(pair)[:, 30:], pixels(noise(30, 20, seed=1)))


def start(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=300)


def test_exit_codes(run_folder: Path) -> None:
    """Of a process; 0 is that of the large photo below."""
    photo("a.jpg")
    Path("bad.jpg").write_bytes(b"garbage")
    done = start("-m", "colordist.colorize", str(run_folder), "a.jpg", "bad.jpg", "-o", "out")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert found() == ["a.png"]
    assert start("-m", "colordist.colorize", str(run_folder)).returncode == 2


def test_it_is_a_verb() -> None:
    assert "colorize" in cli.VERBS


def test_help_and_import_do_without_torch() -> None:
    code = "import sys, colordist, colordist.colorize; sys.exit('torch' in sys.modules)"
    assert start("-c", code).returncode == 0
    assert "--side_by_side" in start("-m", "colordist.colorize", "--help").stdout


def test_12_megapixels_in_less_than_2_gigabytes(run_folder: Path) -> None:
    gradient = Image.linear_gradient("L").resize((4000, 3000))
    large = Image.merge("RGBA", [gradient, gradient.transpose(Image.Transpose.ROTATE_180)] * 2)
    large.save("large.png", compress_level=1)
    code = (
        "import resource, runpy, sys; sys.argv[0] = 'colorize'\n"
        "try: runpy.run_module('colordist.colorize', run_name='__main__')\n"
        "finally: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = start("-c", code, str(run_folder), "large.png", "-o", "out", "--side_by_side", "--format", "jpg")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) < 2e9 / (1 if sys.platform == "darwin" else 1024)
    assert Image.open("out/large.jpg").size == (8000, 3000)


# --- several answers


def test_variants_have_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    snapshot_in(tmp_path / "noisy" / "snapshots" / "step-000001", noise=3)
    photo("in/a.jpg")
    photo("in/sub/b.v2.png", level=50)
    Path("in/no.jpg").write_text("no photo")
    assert call(monkeypatch, tmp_path / "noisy", "in", "-o", "out", "--variants", "3") == 1
    names = [f"{stem}-{number}.png" for stem in ("a", "sub/b.v2") for number in (1, 2, 3)]
    assert found() == names
    assert len({Path("out", name).read_bytes() for name in names}) == 6
    shown = capsys.readouterr()
    assert shown.err.count("skipped in/no.jpg") == 1
    assert "coloured 2 of 3 photos" in shown.err

    assert call(monkeypatch, tmp_path / "noisy", "in/a.jpg", "-o", "out") == 0
    assert Path("out/a.png").read_bytes() == Path("out/a-1.png").read_bytes()
    assert call(monkeypatch, tmp_path / "noisy", "in/a.jpg", "-o", "out", "--variants", "3") == 1
    assert "a-3.png exists: give --overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("count", "told"),
    [("4", "--variants is 4, but this network has 1 (model.noise): try 1"), ("0", "try --variants 1")],
)
def test_mistaken_variants_are_one_line(
    count: str, told: str, run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photo("a.jpg")
    assert call(monkeypatch, run_folder, "a.jpg", "-o", "out", "--variants", count) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert told in said
    assert not Path("out").exists()


# --- hints


def test_hints_colour_their_photo_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "hinted"
    snapshot_in(run / "snapshots" / "step-000001", hints=True)
    for name in ("in/a.jpg", "in/b.jpg"):
        photo(name)
    point = {"x": 4, "y": 5, "color": "red"}
    Path("hints.json").write_text(json.dumps({"a.jpg": [point]}))
    Path("outside.json").write_text(json.dumps({"a.jpg": [point], "b.jpg": [point | {"x": 20}]}))
    assert call(monkeypatch, run, "in", "-o", "without") == 0
    assert call(monkeypatch, run, "in", "-o", "with", "--hints", "hints.json") == 0
    same = [Path("without", name).read_bytes() == Path("with", name).read_bytes() for name in ("a.png", "b.png")]
    assert same == [False, True]
    answer = colordist.load(run)(Image.open("in/a.jpg"), hints=[Hint(4, 5, "red")])
    np.testing.assert_array_equal(pixels(Image.open("with/a.png")), pixels(answer))
    capsys.readouterr()
    assert call(monkeypatch, run, "in", "-o", "out", "--hints", "outside.json") == 1
    assert "skipped in/b.jpg: hint: 20, 5 is outside of the photo, which has 20x12" in capsys.readouterr().err
    assert found() == ["a.png"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("none.json", "--hints none.json: there is no such file"),
        ("bad.json", "--hints bad.json: it is no JSON"),
        ("other.json", "hints are for b.jpg, the name of no photo"),
        ("good.json", "takes no hints: train a network with task.hints true"),
    ],
)
def test_mistaken_hints_are_one_line(
    name: str, told: str, run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photo("a.jpg")
    Path("bad.json").write_text("{")
    Path("other.json").write_text('{"b.jpg": []}')
    Path("good.json").write_text("[]")
    assert call(monkeypatch, run_folder, "a.jpg", "-o", "out", "--hints", name) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert told in said
    assert not Path("out").exists()
