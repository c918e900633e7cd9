"""evaluate --answers: files of any programs beside the photographs."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import alone_on_the_cpu
from image_corpus import FLAG, JPEG, OVER_WHITE, RED_BLUE_SWAPPED, USABLE, USELESS, Corners, encode, paint
from numpy.typing import NDArray
from PIL import Image

from colordist.errors import RunError, UserError
from colordist.evaluate import carry_out
from colordist.evaluation.file_check import read_again
from colordist.evaluation.referee import Judgement
from colordist.reporting import programs
from colordist.reporting.programs import Programs, compare_programs

Pixels = NDArray[np.uint8]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    with alone_on_the_cpu(monkeypatch):
        yield


def plain(color: tuple[int, int, int], width: int = 12, height: int = 12) -> Pixels:
    return np.full((height, width, 3), color, np.uint8)


def noise(seed: int, width: int = 40, height: int = 24) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def near(image: Pixels, seed: int, most: int = 25) -> Pixels:
    offsets = np.random.default_rng(seed).integers(-most, most + 1, image.shape)
    return np.clip(image.astype(int) + offsets, 0, 255).astype(np.uint8)


def folder(name: str, images: Mapping[str, Pixels | bytes]) -> str:
    """Write images, or contents of files, into a folder."""
    for file, content in images.items():
        path = Path(name, file)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else encode(Image.fromarray(content), "PNG"))
    return name


def judged(*answers: str) -> dict[str, Any]:
    carry_out(["--answers", *answers, "--truth", "truth", "--json", "scores.json"])
    found: dict[str, Any] = json.loads(Path("scores.json").read_text())
    return found


def mistake(*arguments: str) -> str:
    with pytest.raises(UserError) as refusal:
        carry_out(arguments or ["--answers", "a", "--truth", "truth"])
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


# --- scores


def test_scores_by_hand() -> None:
    """One answer is off by 10 levels everywhere, the other, larger one is exact."""
    photos = {"small.png": plain((100, 120, 140)), "large.png": plain((50, 60, 40), 20, 16)}
    folder("truth", photos)
    folder("a", photos | {"small.png": plain((110, 110, 150))})
    found = judged("a")
    scores = found["scores"]["a"]
    assert found["images"] == ["large", "small"]
    assert scores["mae"] == pytest.approx(100 * 10 / 255 / 2, rel=1e-12)
    assert scores["psnr"] == pytest.approx((28.130803608679 + 100) / 2, abs=1e-9)
    assert scores["psnr_set"] == pytest.approx(10 * np.log10(255**2 / (100 * 144 / (144 + 320))), rel=1e-12)
    assert found["references"]["target"]["mae"] == 0
    assert found["references"]["grey"]["colorfulness"] == 0
    assert found["per_image"]["a"][0] == 0
    assert scores["ciede2000"] == pytest.approx(found["per_image"]["a"][1] / 2, rel=1e-12)


def test_each_image_is_scored_at_its_own_size_as_by_scikit_image() -> None:
    color, metrics = pytest.importorskip("skimage.color"), pytest.importorskip("skimage.metrics")
    photos = {f"{index}.png": noise(index, 20 + 11 * index, 30 - 3 * index) for index in range(4)}
    answers = {name: near(image, 9) for name, image in photos.items()}
    folder("truth", photos)
    folder("a", answers)
    found = judged("a")
    pairs = [(answers[name], photos[name]) for name in sorted(photos)]
    lab = [[color.rgb2lab(each / 255) for each in pair] for pair in pairs]
    ssim = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": 2}
    expected = {
        "ciede2000": [color.deltaE_ciede2000(*pair).mean() for pair in lab],
        "psnr": [metrics.peak_signal_noise_ratio(image, answer) for answer, image in pairs],
        "ssim": [metrics.structural_similarity(*pair, data_range=255, **ssim) for pair in pairs],
        "cf_unsigned": [unsigned(answer) for answer, _ in pairs],
    }
    assert found["per_image"]["a"] == pytest.approx(expected["ciede2000"], abs=2e-4)  # its matrix has fewer digits
    for name, values in expected.items():
        assert found["scores"]["a"][name] == pytest.approx(np.mean(values), abs=2e-4 if name == "ciede2000" else 1e-6)
    means = [np.mean([unsigned(pair[place]) for pair in pairs]) for place in (0, 1)]
    assert found["scores"]["a"]["delta_cf_unsigned"] == pytest.approx(abs(means[0] - means[1]), abs=1e-9)


def unsigned(image: Pixels) -> float:
    """Colourfulness of magnitudes, as DDColor's script computes it."""
    red, green, blue = image.astype(float).transpose(2, 0, 1)
    rg, yb = abs(red - green), abs((red + green) / 2 - blue)
    return float(np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean()))


def test_the_constant_baseline_has_the_median_of_the_photographs() -> None:
    folder(
        "truth", {"a.png": plain((200, 40, 40), 9, 9), "b.png": plain((200, 40, 40), 10, 10), "c.png": noise(0, 8, 8)}
    )
    folder("a", {"a.png": noise(1, 9, 9), "b.png": noise(2, 10, 10), "c.png": noise(3, 8, 8)})
    found = judged("a")
    _, a, b = pytest.importorskip("skimage.color").rgb2lab(np.array([200, 40, 40]) / 255)
    assert found["median_ab"] == pytest.approx([a, b], abs=0.006)  # that of more than half of the pixels
    assert [*found["references"]] == ["grey", "constant_of_truth", "oracle", "target"]


def test_a_program_that_writes_a_baseline_or_the_photographs_has_their_scores() -> None:
    photos = {f"{index}.png": noise(index, 20 + index, 30) for index in range(3)}
    folder("truth", photos)
    folder("copies", photos)
    grey = {name: np.asarray(Image.fromarray(image).convert("L")) for name, image in photos.items()}
    folder("greys", {name: encode(Image.fromarray(image), "PNG") for name, image in grey.items()})
    found = judged("copies", "greys")
    assert found["scores"]["copies"] == found["references"]["target"]
    assert found["scores"]["greys"]["ciede2000"] == pytest.approx(found["references"]["grey"]["ciede2000"], abs=0.05)


def test_photographs_without_colour_are_left_out() -> None:
    photos = {"a.png": noise(0), "grey.png": plain((70, 70, 70)), "z.png": noise(1)}
    folder("truth", photos)
    folder("a", photos | {"grey.png": plain((200, 0, 0))})
    found = judged("a")
    assert (found["images"], found["left_out"]) == (["a", "z"], ["grey"])
    assert found["scores"]["a"]["mae"] == 0
    folder("truth", {"a.png": plain((1, 1, 1)), "z.png": plain((2, 2, 2))})
    folder("a", {"a.png": plain((1, 1, 1)), "z.png": plain((2, 2, 2))})
    assert mistake() == "no photograph in --truth truth has any colour, so there is nothing to score"


@pytest.mark.parametrize(
    ("file", "shown"),
    [
        ("alpha.png", OVER_WHITE),
        ("deep_rgb.png", FLAG),
        ("palette.png", FLAG),
        ("cmyk.jpg", FLAG),
        ("orientation_6.jpg", FLAG),
        ("orientation_6.png", FLAG),
        ("profile_swapped.png", RED_BLUE_SWAPPED),
    ],
)
def test_files_are_decoded_as_everywhere(file: str, shown: Corners) -> None:
    """Also where it is the photograph that is stored so."""
    stored = USABLE[file][0]
    exact = np.asarray(paint(shown))
    folder("truth", {"one.png": exact, f"two{Path(file).suffix}": stored})
    folder("a", {f"one{Path(file).suffix}": stored, "two.png": exact})
    assert max(judged("a")["per_image"]["a"]) < (2.5 if file.endswith("jpg") or "profile" in file else 0.01)


# --- several programs


def test_programs_are_compared_in_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    stats = pytest.importorskip("scipy.stats")
    photos = {f"{index}.png": noise(index) for index in range(6)}
    folder("truth", photos)
    for name, most in (("good", 10), ("bad", 60), ("dull", 25)):
        folder(f"programs/{name}", {file: near(image, 7, most) for file, image in photos.items()})
    found = judged("programs/bad", "programs/good", "programs/dull")
    pairs = found["differences"]
    assert [(each["better"], each["worse"]) for each in pairs] == [("good", "dull"), ("good", "bad"), ("dull", "bad")]
    for each in pairs:
        test = stats.ttest_rel(*(found["per_image"][each[side]] for side in ("worse", "better")))
        low, high = test.confidence_interval(1 - 0.05 / 3)
        assert each["difference"]["mean"] == pytest.approx((low + high) / 2)
        assert each["difference"]["margin"] == pytest.approx((high - low) / 2)
    lines = capsys.readouterr().out.splitlines()
    assert sum(" beats " in line for line in lines) == 3
    assert lines[-2] == "good has the better mean in 9 of 9 scores."


def test_equal_programs_and_a_single_photograph_are_not_decided(capsys: pytest.CaptureFixture[str]) -> None:
    folder("truth", {"x.png": noise(0)})
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        folder(name, {"x.png": near(noise(0), seed)})
    found = judged("a", "b", "c")
    assert [each["difference"]["margin"] for each in found["differences"]] == [None] * 3
    shown = capsys.readouterr().out
    assert "a and b are equal by CIEDE2000" in shown
    assert shown.count("That may be chance.") == 2


def test_folders_of_one_name_are_told_apart_by_their_paths() -> None:
    folder("truth", {"x.png": noise(0)})
    for name in ("one/out", "two/out"):
        folder(name, {"x.png": noise(1)})
    assert [*judged("one/out", "two/out")["scores"]] == ["one/out", "two/out"]


def test_folders_that_would_be_shown_alike_are_a_mistake() -> None:
    folder("truth", {"x.png": noise(0)})
    names = [folder(name, {"x.png": noise(1)}) for name in ("a\nb", "a?b")]
    assert "shown as a?b: rename one" in mistake("--answers", *names, "--truth", "truth")


def test_answers_inside_the_photographs_folder_are_no_photographs() -> None:
    folder("truth", {"x.png": noise(0)})
    folder("truth/answers", {"x.png": noise(1)})
    assert judged("truth/answers")["images"] == ["x"]


# --- names


def test_suffixes_do_not_matter_and_folders_do() -> None:
    folder("truth", {"cats/1.jpg": JPEG, "dogs/1.jpg": JPEG, "v1.2.jpg": JPEG})
    folder("a", {"cats/1.png": JPEG, "dogs/1.webp": JPEG, "v1.2.PNG": JPEG})
    assert judged("a")["images"] == ["cats/1", "dogs/1", "v1.2"]


def test_answers_in_other_folders_are_found_by_unique_stems() -> None:
    folder("truth", {"cats/1.jpg": JPEG, "dogs/2.jpg": noise(0)})
    folder("a", {"1.png": JPEG, "2.png": noise(0)})
    assert judged("a")["scores"]["a"]["mae"] == 0


@pytest.mark.parametrize(
    ("photos", "answers", "told"),
    [
        (
            ("cats/1", "dogs/1"),
            ("1",),
            "2 photographs can't be told from others by the file name alone (cats/1, dogs/1)",
        ),
        (("1",), ("x/1", "y/1"), "1 photograph can't be told from others by the file name alone (1)"),
        (
            ("cats/1", "dogs/1"),
            ("cats/1", "1"),
            "1 photograph can't be told from others by the file name alone (dogs/1)",
        ),
        (("1", "2", "3", "4", "5"), ("5",), "has no answer to 4 of 5 photographs (1, 2, 3, ...)"),
    ],
)
def test_names_that_do_not_match(photos: tuple[str, ...], answers: tuple[str, ...], told: str) -> None:
    folder("truth", {f"{name}.jpg": JPEG for name in photos})
    folder("a", {f"{name}.png": JPEG for name in answers})
    assert told in mistake()


@pytest.mark.parametrize("where", ["truth", "a"])
def test_two_images_of_one_name(where: str) -> None:
    folder("truth", {"x.jpg": JPEG})
    folder("a", {"x.jpg": JPEG})
    folder(where, {"x.png": JPEG})
    option = {"truth": "--truth", "a": "--answers"}[where]
    assert mistake() == f"{option} {where} has two images named x, x.jpg and x.png: keep one"


def test_answers_without_a_photograph_are_named_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    folder("truth", {"x.jpg": JPEG})
    folder("a", dict.fromkeys(("x.png", "extra\n1.png", "extra2.png", "extra3.png", "extra4.png"), JPEG))
    assert judged("a")["images"] == ["x"]
    assert caplog.messages == [
        "colordist: --answers a has 4 images without a photograph in --truth, not scored: extra?1, extra2, extra3, ..."
    ]


# --- files


def test_all_kinds_of_unusable_files_are_named_at_once(caplog: pytest.LogCaptureFixture) -> None:
    names = [*"abcdefg"]
    folder("truth", {f"{name}.jpg": JPEG for name in names} | {"g.jpg": USELESS["half.jpg"][0]})
    answers: dict[str, Pixels | bytes] = {f"{name}.png": JPEG for name in names}
    answers |= {"a.png": USELESS["empty.jpg"][0], "b.png": noise(0, 32, 48), "c.png": noise(0, 8, 8)}
    folder("a", answers)
    last = mistake()
    assert [*caplog.messages, f"colordist: {last}"] == [
        "colordist: --answers a: 1 image can't be read (a: empty file): replace them, or take them out of both folders",
        "colordist: --answers a: 2 images are of another size than the photograph (b: 32x48 instead of 48x32, c: 8x8 "
        "instead of 48x32): scale answers to the photograph",
        "colordist: --truth truth: 1 image can't be read (g: truncated or damaged): replace them, or take them out of "
        "both folders",
    ]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--answers", "a"), "--answers needs --truth DIR"),
        (("--truth", "truth"), "--truth needs --answers DIR"),
        (("--answers", "nowhere", "--truth", "truth"), "--answers nowhere is no folder"),
        (("--answers", "a", "--truth", "truth/x.jpg"), "--truth truth/x.jpg is no folder"),
        (("--answers", "empty", "--truth", "truth"), "no image in --answers empty"),
        (("--answers", "a", "--truth", "empty"), "no image in --truth empty"),
        (("--answers", "a", "./a", "--truth", "truth"), "--answers a is named twice"),
        (("--answers", "truth", "--truth", "truth"), "is the folder of --truth"),
        (("RUN", "--answers", "a", "--truth", "truth"), "RUN doesn't go with --answers"),
        (
            ("--answers", "a", "--truth", "truth", "--data.image_size", "64"),
            "--data.image_size doesn't go with --answers",
        ),
        (("--answers", "a", "--truth", "truth", "--evaluate.every", "5"), "--evaluate.every doesn't go with --answers"),
        (("--answers", "a", "--truth", "truth", "--evaluate.metrics", "[lpipss]"), "did you mean lpips?"),
        (("--answers", "a", "--truth", "truth", "-o", "page.pdf"), "-o page.pdf is no .html"),
        (("--answers", "a", "--truth", "truth", "-o", "own.html"), "-o own.html is there already"),
        (("--answers", "a", "--truth", "truth", "--json", "own.html"), "--json own.html is there already"),
        (("--answers", "nowhere", "--truth", "truth", "--json", "own.html/x"), "own.html is no folder"),
        (("--answers", "nowhere", "--truth", "truth", "-o", "own.html/x.html"), "own.html is no folder"),
        (("--answers", "nowhere", "--truth", "truth", "--json", "empty"), "--json empty is there already"),
        (("--answers", "a", "--truth", "truth", "--json", "p.html", "-o", "./p.html"), "both name p.html"),
    ],
)
def test_mistakes_are_one_line(arguments: tuple[str, ...], told: str) -> None:
    folder("truth", {"x.jpg": JPEG})
    folder("a", {"x.png": JPEG})
    Path("empty").mkdir()
    Path("own.html").write_text("mine")
    assert told in mistake(*arguments)
    assert Path("own.html").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_without_permission() -> None:
    folder("truth", {"x.jpg": JPEG})
    folder("a", {"x.png": JPEG})
    Path("a").chmod(0)
    assert "no permission" in mistake()


def test_a_file_that_vanishes_while_answers_are_scored_is_no_mistake() -> None:
    with pytest.raises(RunError, match=r"nowhere\.png can't be read any more"):
        read_again(Path("nowhere.png"), torch.device("cpu"))


# --- the page


def test_the_page_shows_the_scores_and_the_photographs_and_is_replaced() -> None:
    photos = {f"{index:02d}.png": noise(index) for index in range(14)}
    folder("truth", photos)
    folder("<b>a", {name: near(image, 3, 5 * index) for index, (name, image) in enumerate(photos.items())})
    for _ in range(2):
        carry_out(["--answers", "<b>a", "--truth", "truth", "-o", "pages/page.html"])
    page = Path("pages/page.html").read_text()
    assert "<b>a" not in page
    assert "&lt;b&gt;a" in page
    assert page.count("<img ") == 12 * 3
    assert page.index("1 of 14") < page.index('alt="13, grey (input)"') < page.index('alt="00, grey (input)"')
    assert "photographs&#39; median a,b (baseline)" in page


def test_the_page_shows_programs_of_any_name() -> None:
    folder("truth", {"x.png": noise(0)})
    names = [folder(name, {"x.png": noise(1)}) for name in ("grey", "photograph", "target")]
    carry_out(["--answers", *names, "--truth", "truth", "-o", "page.html"])
    assert Path("page.html").read_text().count("<img ") == 2 + len(names)


def test_an_answer_that_vanishes_before_it_is_shown_is_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    folder("truth", {"x.png": noise(0)})
    folder("a", {"x.png": noise(1)})

    def compare(judgement: Judgement) -> Programs:
        Path("a", "x.png").unlink()
        return compare_programs(judgement)

    monkeypatch.setattr(programs, "compare_programs", compare)
    with pytest.raises(RunError, match=r"a/x\.png can't be read any more"):
        carry_out(["--answers", "a", "--truth", "truth", "--json", "scores.json", "-o", "page.html"])
    assert Path("scores.json").exists()
    assert not Path("page.html").exists()
