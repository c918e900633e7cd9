import json
import logging
import multiprocessing
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from colordist.color import ColorSpace
from colordist.data.batch import Share
from colordist.data.decode import Scaling, Undecodable, decode
from colordist.data.loader import ResidentLoader, image_digest, load
from colordist.data.sampler import Sampler
from colordist.data.source import Source, Split
from colordist.data.sources import folder as module
from colordist.data.sources import folder_files
from colordist.data.sources.folder import folder, mean_chroma
from colordist.errors import UserError

SIZE = 16


@pytest.fixture(autouse=True)
def _hear_everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def photo(path: Path, level: int = 100, *, side: int = SIZE) -> Path:
    """A photo of one colour; the level tells it from others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, side), (level, 0, 255)).save(path)
    return path


def levels(split: Split) -> list[int]:
    return [int(split[index][0, 0, 0]) for index in range(len(split))]


def has_split_folders(root: Path) -> Path:
    """Two classes with two training images and one test image each; levels in the order of names."""
    for level, name in enumerate(
        [
            "test/cat/0.png",
            "test/dog/0.png",
            "train/cat/0.png",
            "train/cat/sub/1.png",
            "train/dog/0.png",
            "train/dog/1.png",
        ]
    ):
        photo(root / name, level)
    return root


def read(root: Path, classes: tuple[str, ...] | None = None, cache: Path | None = None) -> Source:
    return folder(root, classes, Scaling(SIZE), cache)


def mistake(root: Path, classes: tuple[str, ...] | None = None) -> str:
    with pytest.raises(UserError) as caught:
        read(root, classes)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_train_and_test_folders_are_the_split(tmp_path: Path) -> None:
    source = read(has_split_folders(tmp_path))
    assert source.name == "folder"
    assert levels(source.train) == [2, 3, 4, 5]
    assert levels(source.test) == [0, 1]
    assert source.train[0].shape == (SIZE, SIZE, 3)
    assert source.train[0].dtype == np.uint8
    with pytest.raises(IndexError):
        source.train[4]


def test_classes_are_subfolders(tmp_path: Path) -> None:
    source = read(has_split_folders(tmp_path), ("dog",))
    assert (levels(source.train), levels(source.test)) == ([4, 5], [1])
    assert levels(read(tmp_path, ("dog", "cat", "dog")).train) == [2, 3, 4, 5]


def test_classes_without_train_and_test(tmp_path: Path) -> None:
    for index in range(30):
        photo(tmp_path / ("cat" if index < 20 else "dog") / f"{index:02}.png", index)
    source = read(tmp_path, ("dog",))
    assert sorted(levels(source.train) + levels(source.test)) == list(range(20, 30))


def test_class_names_compare_as_people_read_them(tmp_path: Path) -> None:
    for index in range(2):
        photo(tmp_path / "poule\u0301" / f"{index}.png")  # é as two characters
        photo(tmp_path / "other" / f"{index}.png")
    source = read(tmp_path, ("poul\u00e9",))
    assert len(source.train) + len(source.test) == 2


def test_unknown_class_names_the_nearest(tmp_path: Path) -> None:
    message = mistake(has_split_folders(tmp_path), ("cat", "dgo"))
    assert "'dgo'" in message
    assert "'dog'" in message
    assert str(tmp_path) in message


def test_without_subfolders_classes_are_ignored_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for index in range(3):
        photo(tmp_path / f"{index}.png")
    assert len(read(tmp_path, ("horse",)).train) == 2
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(lines) == 1
    assert "data.classes is ignored" in lines[0]


def test_only_a_train_folder_is_split_by_name(tmp_path: Path) -> None:
    for index in range(5):
        photo(tmp_path / "train" / f"{index}.png")
    source = read(tmp_path)
    assert (len(source.train), len(source.test)) == (4, 1)


# The split by name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("0.png", 10552310398821707779),
        ("horse/0001.jpg", 7876840527378556503),
        ("schöne Pferde/馬.jpg", 17032435333587925396),
        ("a/b/c.jpeg", 4760611369564092836),
    ],
)
def test_hash_never_changes(name: str, value: int) -> None:
    assert folder_files.name_hash(name) == value


def test_split_by_name_never_changes(tmp_path: Path) -> None:
    for index in range(40):
        photo(tmp_path / "any" / f"{index:02}.png", index)
    assert levels(read(tmp_path).test) == [1, 23, 25]


def test_split_does_not_depend_on_where_the_folder_is(tmp_path: Path) -> None:
    for place in ("here", "there/and/further"):
        for index in range(25):
            photo(tmp_path / place / f"{index}.png", index)
    here, there = (read(tmp_path / place) for place in ("here", "there/and/further"))
    assert levels(here.test) == levels(there.test)


def test_an_image_more_moves_no_other(tmp_path: Path) -> None:
    for index in range(60):
        photo(tmp_path / f"{index}.png", index)
    before = set(levels(read(tmp_path).test))
    photo(tmp_path / "more.png", 200)
    assert set(levels(read(tmp_path).test)) - {200} == before


@given(st.sets(st.text(min_size=1, max_size=8), min_size=2, max_size=50))
def test_both_splits_get_an_image(names: set[str]) -> None:
    held_out = folder_files._held_out(Path("root"), folder_files.Found(has_split_folders=False), sorted(names), {})
    assert 1 <= sum(held_out) < len(names)


def test_share_of_the_test_split() -> None:
    names = [f"{index}.jpg" for index in range(20_000)]
    held_out = folder_files._held_out(Path("root"), folder_files.Found(has_split_folders=False), names, {})
    assert 0.09 < np.mean(held_out) < 0.11


# What folders hold


def test_order_is_that_of_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    has_split_folders(tmp_path)
    expected = levels(read(tmp_path).train)
    listing = Path.iterdir

    def reversed_listing(self: Path) -> Iterator[Path]:
        return iter(sorted(listing(self), reverse=True))

    monkeypatch.setattr(Path, "iterdir", reversed_listing)
    assert levels(read(tmp_path).train) == expected


def test_odd_files_are_skipped_named_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    has_split_folders(tmp_path)
    train = tmp_path / "train"
    for index in range(7):
        (train / f"empty{index}.jpg").touch()
    (train / "text.jpg").write_text("not a photo")
    (train / "two\nlines.png").write_text("not a photo")
    (train / "cut.PNG").write_bytes(photo(train / "whole.png", 6).read_bytes()[:60])
    photo(train / "pixel.png", side=1)
    (train / "link.jpg").symlink_to(train / "nowhere.jpg")
    (train / "loop.jpg").symlink_to(train / "loop.jpg")
    os.mkfifo(train / "pipe.jpg")
    (train / "notes.txt").touch()
    (train / "photo.jpg.part").touch()
    (train / "._whole.png").write_bytes(b"what a Mac leaves")
    photo(train / ".thumbnails" / "copy.png")
    photo(train / "folder.jpg" / "inside.png", 7)

    assert levels(read(tmp_path).train) == [2, 3, 4, 5, 7, 6]
    info, warning = (record.getMessage() for record in caplog.records)
    assert "6 training and 2 test images" in info
    assert "3 other files ignored" in info
    assert warning.startswith(f"{tmp_path}: skipped ")
    assert "7 empty file (train/empty0.jpg, " in warning
    assert "train/empty4.jpg and 2 more)" in warning
    assert "2 broken link (train/link.jpg, train/loop.jpg)" in warning
    assert "2 not a readable image (train/text.jpg, train/two?lines.png)" in warning
    assert "1 truncated or damaged (train/cut.PNG)" in warning
    assert "1 smaller than 8 pixels (train/pixel.png)" in warning
    assert "1 not a regular file (train/pipe.jpg)" in warning
    assert "\n" not in warning


def test_colorless_photos_are_kept_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    has_split_folders(tmp_path)
    for index in range(3):
        Image.new("L", (SIZE, SIZE), 50).save(tmp_path / "train" / f"grey{index}.jpg")
    Image.new("L", (SIZE, SIZE), 50).save(tmp_path / "test" / "grey.jpg")
    source = read(tmp_path)
    assert (len(source.train), len(source.test)) == (7, 3)
    assert "3 of 7 training images are nearly grey (mean chroma below 3), and teach grey answers" in caplog.text
    assert "; data.min_chroma 3 leaves them out" in caplog.text


def test_chroma_by_hand() -> None:
    image = np.array([[[10, 20, 30], [7, 7, 7]], [[255, 0, 0], [5, 4, 6]]], np.uint8)
    assert mean_chroma(image) == (20 + 0 + 255 + 2) / 4
    assert mean_chroma(np.full((3, 1, 3), 200, np.uint8)) == 0
    assert mean_chroma(np.tile(np.array([255, 0, 9], np.uint8), (300, 300, 1))) == 255


def tinted(root: Path) -> Path:
    """Training images with a mean chroma of 0, 1, 2, 3, 40 and 80, and grey test images."""
    for chroma in (0, 1, 2, 3, 40, 80):
        for part, color in ("train", (100 + chroma, 100, 100)), ("test", (50, 50, 50)):
            path = root / part / ("cat" if chroma % 2 else "dog") / f"{chroma:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (SIZE, SIZE), color).save(path)
    return root


@pytest.mark.parametrize(
    ("least", "kept", "said"),
    [
        (
            0.0,
            [101, 103, 100, 102, 140, 180],
            "are nearly grey (mean chroma below 3), and teach grey answers; data.min",
        ),
        (
            2.5,
            [103, 140, 180],
            "3 of 6 training images are nearly grey (mean chroma below 3), and teach grey answers; ",
        ),
        (3.0, [103, 140, 180], "data.min_chroma 3 leaves out 3"),
        (40.0, [140, 180], "data.min_chroma 40 leaves out 4"),
    ],
)
def test_photos_of_little_chroma_are_left_out(
    least: float, kept: list[int], said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tinted(tmp_path / "root")
    for _ in range(2):  # the second time from the cache, which holds all images
        source = folder(root, None, Scaling(SIZE), tmp_path / "cache", min_chroma=least)
        assert levels(source.train) == kept
        assert len(source.test) == 6
        assert source.digest == folder(root, None, Scaling(SIZE), None).digest
    assert said in caplog.text
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_colorful_photos_left_out_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    has_split_folders(tmp_path)
    Image.new("RGB", (SIZE, SIZE), (120, 100, 100)).save(tmp_path / "train" / "dull.png")
    assert levels(folder(tmp_path, None, Scaling(SIZE), None, min_chroma=100).train) == [2, 3, 4, 5]
    assert caplog.messages[-1] == f"{tmp_path}: data.min_chroma 100 leaves out 1 of 5 training images"


def test_no_photo_has_so_much_chroma(tmp_path: Path) -> None:
    tinted(tmp_path)
    with pytest.raises(UserError) as caught:
        folder(tmp_path, None, Scaling(SIZE), None, min_chroma=80.5)
    expected = f"data.min_chroma is 80.5, but no training image in {tmp_path} has more than 80.0: try data.min_chroma 3"
    assert str(caught.value) == expected


def test_clean_folders_give_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read(has_split_folders(tmp_path))
    assert len(caplog.records) == 1


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    has_split_folders(tmp_path / "real")
    root = tmp_path / "root"
    root.mkdir()
    (root / "train").symlink_to(tmp_path / "real" / "train")
    (root / "test").symlink_to(tmp_path / "real" / "test")
    (tmp_path / "real" / "train" / "cat" / "up").symlink_to(tmp_path / "real" / "train")
    (tmp_path / "real" / "train" / "aside").symlink_to(tmp_path / "real" / "test")
    (tmp_path / "real" / "test" / "aside").symlink_to(tmp_path / "real" / "train")
    assert set(levels(read(root).train)) == {0, 1, 2, 3, 4, 5}


def test_names_that_are_no_text(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    has_split_folders(tmp_path)
    train = os.fsencode(tmp_path / "train")
    os.rename(train + b"/cat/0.png", train + b"/cat/\xff\xfe.png")
    with open(train + b"/\xff.jpg", "w"):
        pass
    assert sorted(levels(read(tmp_path, cache=tmp_path / "cache").train)) == [2, 3, 4, 5]
    assert sorted(levels(read(tmp_path, cache=tmp_path / "cache").train)) == [2, 3, 4, 5]
    assert "1 empty file (train/?.jpg)" in caplog.text
    caplog.text.encode()


def test_a_file_gone_meanwhile_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    has_split_folders(tmp_path)
    found = folder_files.find(tmp_path, None)
    (tmp_path / "train/cat/0.png").unlink()
    monkeypatch.setattr(module, "find", lambda root, classes: found)
    assert levels(read(tmp_path).train) == [3, 4, 5]


# Mistakes


def test_no_folder(tmp_path: Path) -> None:
    assert str(tmp_path / "nowhere") in mistake(tmp_path / "nowhere")
    assert "is not a folder" in mistake(photo(tmp_path / "a.jpg"))


def test_no_usable_image(tmp_path: Path) -> None:
    assert "0 usable images" in mistake(tmp_path)
    (tmp_path / "a.jpg").touch()
    (tmp_path / "notes.txt").touch()
    message = mistake(tmp_path)
    assert str(tmp_path) in message
    assert "1 empty file (a.jpg) and 1 other files" in message
    photo(tmp_path / "b.jpg")
    assert "1 usable images" in mistake(tmp_path)


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_split_without_images(part: str, tmp_path: Path) -> None:
    has_split_folders(tmp_path)
    for path in (tmp_path / part).rglob("*.png"):
        path.write_bytes(b"")
    message = mistake(tmp_path)
    assert f"no usable image in {tmp_path / part}" in message
    assert "empty file" in message


def test_no_permission(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    has_split_folders(tmp_path)
    closed = tmp_path / "train" / "cat"
    closed.chmod(0)
    if os.access(closed, os.R_OK):
        pytest.skip("root may read everything")
    assert levels(read(tmp_path).train) == [4, 5]
    assert "unreadable folder (train/cat)" in caplog.text
    closed.chmod(0o700)
    (tmp_path / "train").chmod(0)
    assert "no permission" in mistake(tmp_path)
    (tmp_path / "train").chmod(0o700)


def test_the_default_never_changes(tmp_path: Path) -> None:
    """Digests of files, images and batches, as of the first version with a source of photos."""
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 256, (20 + number, 45 - 2 * number, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number:02d}.ppm")
    source = read(tmp_path)
    train, test = (load(split, torch.device("cpu")) for split in (source.train, source.test))
    assert source.digest == "f7ce499ec85d074e"
    scaled = "e0d5fac3" if int(PIL.__version__.partition(".")[0]) >= 13 else "f8637ca5"  # Pillow 13 rounds otherwise
    assert (len(train), len(test), image_digest(train), image_digest(test)) == (10, 2, "5a6c0427", scaled)
    for unpaired, expected in (False, 0xCE30E383), (True, 0xEC879231):
        sampler, found = Sampler(4, 10, 6, True, unpaired=unpaired), 0
        share = Share(sampler, ColorSpace("rgb"), train.device, torch.float64, 4, 0, 1)
        for step in range(4):
            for batch in ResidentLoader(train, share).micro_batches(step):
                for values in (batch.grey, batch.target, batch.target_grey, batch.uniforms):
                    found = zlib.crc32(values.numpy().tobytes(), found)
        assert found == expected


# The cache


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "deep"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return has_split_folders(tmp_path / "root")


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files decoded so far."""
    names: list[str] = []

    def remember(path: Path, size: int | None = None) -> Image.Image:
        names.append(path.name)
        return decode(path, size)

    monkeypatch.setattr(module, "decode", remember)
    return names


def files(cache: Path) -> list[str]:
    return sorted(path.suffix for path in cache.iterdir())


def test_second_start_decodes_nothing(
    root: Path, cache: Path, decoded: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    (root / "train" / "empty.jpg").touch()
    first = read(root, cache=cache)
    said = caplog.messages
    assert len(decoded) == 7
    caplog.clear()
    second = read(root, cache=cache)
    assert len(decoded) == 7
    assert caplog.messages == said
    assert files(cache) == [".json", ".npy"]
    for one, other in (first.train, second.train), (first.test, second.test):
        assert levels(one) == levels(other)


def test_without_a_cache_each_start_decodes(root: Path, decoded: list[str]) -> None:
    read(root)
    read(root)
    assert len(decoded) == 12


def touch(root: Path) -> None:
    os.utime(root / "train/cat/0.png", ns=(1, 1))


def grow(root: Path) -> None:
    path = root / "train/cat/0.png"
    status = path.stat()
    path.write_bytes(path.read_bytes() + b"more")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def add(root: Path) -> None:
    photo(root / "train/cat/new.png")


def remove(root: Path) -> None:
    (root / "train/cat/0.png").unlink()


def rename(root: Path) -> None:
    (root / "train/cat/0.png").rename(root / "train/cat/00.png")


def forbid(root: Path) -> None:
    (root / "train/cat/0.png").chmod(0o600)


@pytest.mark.parametrize("change", [touch, grow, add, remove, rename, forbid])
def test_changes_are_noticed(change: object, root: Path, cache: Path, decoded: list[str]) -> None:
    assert callable(change)
    read(root, cache=cache)
    decoded.clear()
    change(root)
    read(root, cache=cache)
    assert decoded


def test_other_questions_get_other_answers(root: Path, tmp_path: Path, cache: Path) -> None:
    twin = tmp_path / "twin"
    for path in root.rglob("*.png"):
        copy = photo(twin / path.relative_to(root), 99)
        assert copy.stat().st_size == path.stat().st_size
        os.utime(copy, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    assert levels(read(root, cache=cache).train) == [2, 3, 4, 5]
    assert levels(read(root, ("dog",), cache=cache).train) == [4, 5]
    assert levels(read(twin, cache=cache).train) == [99] * 4
    assert folder(root, None, Scaling(8), cache).train[0].shape == (8, 8, 3)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def scribble(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-40] ^= 255
    path.write_bytes(bytes(content))


def lose(path: Path) -> None:
    path.unlink()


def replace(path: Path) -> None:
    path.write_text("[]")


def other_array(path: Path) -> None:
    np.save(path.with_suffix(""), np.zeros((6, SIZE, SIZE, 3), np.float32))
    path.with_suffix("").with_suffix(".npy").replace(path)


def archive(path: Path) -> None:
    with open(path, "wb") as file:
        np.savez(file, np.zeros(3))


@pytest.mark.parametrize(
    "change",
    [
        {"train": [0, 1, 99]},
        {"train": [0, -1, 2, 3]},
        {"train": {"a": 1}},
        {"test": None},
        {"chroma": []},
        {"chroma": ["a"] * 4},
        {"skipped": {"why": 5}},
        {"digest": 5},
        {"sizes": [[-8, -8]] * 6},
        {"sizes": [[8.5, 8]] * 6},
        {"sizes": [[8] * 3] * 6},
        {"sizes": [[10**30, 8]] * 6},
        {"crc32": "a"},
    ],
)
def test_a_cache_of_other_types_is_rewritten(
    change: dict[str, object], root: Path, cache: Path, decoded: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    read(root, cache=cache)
    (file,) = cache.glob("*.json")
    whole = json.loads(file.read_text())
    file.write_text(json.dumps(whole | change))
    decoded.clear()
    assert levels(read(root, cache=cache).train) == [2, 3, 4, 5]
    assert len(decoded) == 6
    assert "is damaged: reading the images again" in caplog.text
    assert json.loads(file.read_text()) == whole


@pytest.mark.parametrize("suffix", [".npy", ".json"])
@pytest.mark.parametrize("damage", [empty, halve, scribble, lose, replace, other_array, archive])
def test_damaged_cache_is_rewritten(
    damage: object, suffix: str, root: Path, cache: Path, decoded: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert callable(damage)
    read(root, cache=cache)
    (path,) = cache.glob(f"*{suffix}")
    damage(path)
    decoded.clear()
    caplog.clear()
    assert levels(read(root, cache=cache).train) == [2, 3, 4, 5]
    assert len(decoded) == 6
    assert sum("is damaged" in message for message in caplog.messages) == (damage is not lose)
    assert levels(read(root, cache=cache).train) == [2, 3, 4, 5]
    assert len(decoded) == 6


def test_unwritable_cache_only_warns(root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    assert levels(read(root, cache=tmp_path / "file" / "cache").train) == [2, 3, 4, 5]
    (line,) = (record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)
    assert "cannot cache" in line
    assert "\n" not in line


def test_full_disk_leaves_nothing_behind(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert levels(read(root, cache=cache).train) == [2, 3, 4, 5]
    assert files(cache) == []


def test_failure_is_not_cached(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "a.jpg").touch()
    with pytest.raises(UserError):
        read(tmp_path, cache=cache)
    assert not cache.exists()


def start(root: Path, cache: Path, answers: "multiprocessing.Queue[list[int]]") -> None:
    answers.put(levels(read(root, cache=cache).train))


def test_several_processes_at_once(root: Path, cache: Path) -> None:
    context = multiprocessing.get_context("fork")
    answers: multiprocessing.Queue[list[int]] = context.Queue()
    processes = [context.Process(target=start, args=(root, cache, answers)) for _ in range(4)]
    for process in processes:
        process.start()
    assert [answers.get(timeout=60) for _ in processes] == [[2, 3, 4, 5]] * 4
    for process in processes:
        process.join()
    assert files(cache) == [".json", ".npy"]


def test_cached_images_are_mapped_not_copied(root: Path, cache: Path) -> None:
    image = read(root, cache=cache).train[0]
    assert not image.flags.writeable
    base: object = image
    while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)


def test_about_is_plain_json(root: Path, cache: Path) -> None:
    read(root, cache=cache)
    (path,) = cache.glob("*.json")
    assert json.loads(path.read_text())["train"] == [2, 3, 4, 5]


def test_any_reason_is_reported(
    root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(path: Path, size: int | None = None) -> Image.Image:
        if path.name == "1.png":
            raise Undecodable("a bad day")
        return decode(path, size)

    monkeypatch.setattr(module, "decode", refuse)
    assert levels(read(root, cache=cache).train) == [2, 4]
    assert "skipped 2 a bad day (train/cat/sub/1.png, train/dog/1.png)" in caplog.text
