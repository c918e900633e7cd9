"""Datasets of Hugging Face's library: the same images as of a folder, whatever form they come in."""

import logging
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import ROOT, alone_on_the_cpu
from image_corpus import USABLE
from image_datasets import dataset_hub, dataset_of, rows_of, saved
from runs import assert_bit_equal, killed_run, learned, run
from small_images import SIDE, images

from colordist.color import ColorSpace
from colordist.data.batch import Share
from colordist.data.decode import Scaling
from colordist.data.loader import load, load_resident
from colordist.data.sampler import Sampler
from colordist.data.source import Source, part_of_training
from colordist.data.sources.dataset_files import by_split
from colordist.data.sources.dataset_rows import RowSplit
from colordist.data.sources.datasets import DatasetSettings, DatasetSource, dataset
from colordist.data.sources.folder import folder
from colordist.data.streaming import StreamingLoader
from colordist.errors import RunError, UserError

datasets = pytest.importorskip("datasets", reason="needs the extra datasets")
pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")

CPU = torch.device("cpu")
BATCH = 6


@pytest.fixture(scope="module")
def top(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of images/, and of the same as a saved dataset in saved/, and as Parquet files in parquet/."""
    top = tmp_path_factory.mktemp("datasets")
    root = images(top / "images")
    saved(root, top / "saved")
    (top / "parquet" / "data").mkdir(parents=True)
    for split in ("train", "test"):
        dataset_of(rows_of(root, split)).to_parquet(top / "parquet" / "data" / f"{split}-00000-of-00001.parquet")
    return top


def settings(root: Path | str, cache: Path, **more: Any) -> DatasetSettings:  # noqa: ANN401  any setting
    given: dict[str, Any] = {"source": "datasets", "root": str(root), "cache": str(cache), "image_size": SIDE}
    return DatasetSettings(**given | more)


def training(source: Source) -> RowSplit:
    assert isinstance(source.train, RowSplit)
    return source.train


def mistake(root: Path | str, cache: Path, **more: Any) -> str:  # noqa: ANN401  any setting
    with pytest.raises(UserError) as caught:
        dataset(settings(root, cache, **more))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- the same images as in a folder


@pytest.mark.parametrize(
    "name", ["saved", "images", "parquet", "parquet/**/*.parquet", "saved/*/*.arrow", "saved/train/*.arrow"]
)
def test_each_form_has_the_folders_images(name: str, top: Path, tmp_path: Path) -> None:
    source, expected = dataset(settings(top / name, tmp_path)), folder(top / "images", None, Scaling(SIDE), None)
    if "train" in name:  # without a split for testing
        assert (len(source.train), len(source.test)) == (24, 2)
        return
    assert source.digest == dataset(settings(top / "saved", tmp_path)).digest
    for found, wanted in (source.train, expected.train), (source.test, expected.test):
        assert torch.equal(load(found, CPU), load(wanted, CPU))


@pytest.mark.parametrize("unpaired", [False, True])
@pytest.mark.parametrize("crop", ["center", "random"])
@pytest.mark.parametrize("workers", [0, 2])
def test_the_same_batches_as_of_the_folder(workers: int, crop: str, unpaired: bool, top: Path, tmp_path: Path) -> None:
    given = settings(top / "saved", tmp_path, resize=20, crop=crop)
    split = training(dataset(given))
    sampler = Sampler(4, len(split), BATCH, True, unpaired=unpaired, random_crops=crop == "random")
    share = Share(sampler, ColorSpace("lab"), CPU, torch.float64, 2, 1, 2)
    expected = load_resident(folder(top / "images", None, Scaling.of(given), None).train, share)
    found = StreamingLoader(split, share, workers)
    for step in (0, 0, 1, 2, 3, 4, 40, 41, 7):
        for one, other in zip(found.micro_batches(step), expected.micro_batches(step), strict=True):
            for name, value in vars(other).items():
                assert torch.equal(getattr(one, name), value), name
    found.close()


def test_orientation_profiles_and_odd_formats_as_in_a_folder(tmp_path: Path) -> None:
    root = tmp_path / "images"
    for split in ("train", "test"):
        (root / split).mkdir(parents=True)
        for number, content in enumerate(USABLE.values()):
            (root / split / f"{number:03d}.jpg").write_bytes(content[0] if isinstance(content, tuple) else content)
    expected = folder(root, None, Scaling(SIDE), None)
    source = dataset(settings(saved(root, tmp_path / "saved"), tmp_path))
    assert len(source.train) == len(USABLE)
    assert torch.equal(load(source.train, CPU), load(expected.train, CPU))


def test_classes_and_fractions(top: Path, tmp_path: Path) -> None:
    expected = folder(top / "images", ("dog",), Scaling(SIDE), None)
    for name in ("saved", "images"):
        source = dataset(settings(top / name, tmp_path, classes=["dog"]))
        assert torch.equal(load(source.train, CPU), load(expected.train, CPU))
        assert torch.equal(load(source.test, CPU), load(expected.test, CPU))
    assert "no class 'dgo'" in mistake(top / "saved", tmp_path, classes=["dgo"])
    half, whole = (
        part_of_training(each, 0.5, 1) for each in (source, folder(top / "images", ("dog",), Scaling(SIDE), None))
    )
    assert torch.equal(load(half.train, CPU), load(whole.train, CPU))


def test_classes_by_a_column_of_numbers(top: Path, tmp_path: Path) -> None:
    rows = rows_of(top / "images", "train")
    numbers = [None if index == 0 else index % 3 for index in range(len(rows))]
    table = dataset_of(rows).add_column("number", numbers).add_column("list", [[1]] * len(rows))
    table.to_parquet(tmp_path / "a[1].parquet")
    source = dataset(settings(tmp_path / "a[1].parquet", tmp_path, class_column="number", classes=["1"]))
    assert len(source.train) + len(source.test) == numbers.count(1)
    refused = mistake(tmp_path / "a[1].parquet", tmp_path, class_column="list", classes=["1"])
    assert refused.startswith("data.class_column is list, which holds no classes: ")


def test_a_split_is_pickled_by_its_files(top: Path, tmp_path: Path) -> None:
    """Where processes aren't forked, workers get the split so."""
    split = training(dataset(settings(top / "saved", tmp_path)))
    content = pickle.dumps(split)
    assert len(content) < sum(split.lengths) / 2
    assert torch.equal(load(pickle.loads(content), CPU), load(split, CPU))


# --- splits, columns


def test_a_tenth_is_held_out_where_there_is_no_test_split(tmp_path: Path) -> None:
    rows = rows_of(images(tmp_path / "images", train=90, test=30), "train")
    dataset_of(rows[:80]).save_to_disk(tmp_path / "less")
    dataset_of(rows).save_to_disk(tmp_path / "more")
    less, more = (dataset(settings(tmp_path / name, tmp_path)) for name in ("less", "more"))
    assert 2 <= len(more.test) <= 20
    tests = [source.test.rows.tolist() for source in (less, more) if isinstance(source.test, RowSplit)]
    assert tests[0] == [row for row in tests[1] if row < 80]
    assert sorted([*tests[1], *training(more).rows.tolist()]) == list(range(90))
    dataset_of(rows[:1]).save_to_disk(tmp_path / "one")
    assert "one image to divide" in mistake(tmp_path / "one", tmp_path)


def test_splits_by_name(top: Path, tmp_path: Path) -> None:
    source = dataset(settings(top / "saved", tmp_path, train_split="test", test_split="train"))
    assert (len(source.train), len(source.test)) == (7, 26)
    message = mistake(top / "saved", tmp_path, test_split="dev")
    assert message.startswith("data.test_split is dev, but the splits of")
    assert message.endswith("are train (26 rows), test (7 rows): name one of them")
    assert "data.train_split is trian" in mistake(top / "saved", tmp_path, train_split="trian")
    names = ["a/train-0.parquet", "a/my_val.parquet", "test/0.parquet", "a/latest.parquet", "a/x-validation.parquet"]
    assert by_split([Path(name) for name in names]) == {
        "train": ["a/train-0.parquet", "a/latest.parquet"],
        "validation": ["a/my_val.parquet", "a/x-validation.parquet"],
        "test": ["test/0.parquet"],
    }


@pytest.mark.parametrize("kind", ["bytes", "struct", "path"])
def test_a_column_that_is_not_declared_as_images(kind: str, top: Path, tmp_path: Path) -> None:
    """As of Parquet files that other programs wrote."""
    rows = rows_of(top / "images", "train")
    values: dict[str, Callable[[dict[str, Any]], Any]] = {
        "bytes": lambda row: row["image"]["bytes"],
        "struct": lambda row: row["image"],
        "path": lambda row: str(top / "images" / "train" / row["label"] / row["image"]["path"]),
    }
    plain = datasets.Dataset.from_list([{"photo": values[kind](row), "id": 1} for row in rows])
    plain.save_to_disk(tmp_path / "plain")
    message = mistake(tmp_path / "plain", tmp_path)
    assert "has 0 columns of type Image, so name one: photo (" in message
    assert message.endswith("id (int64)")
    split = training(dataset(settings(tmp_path / "plain", tmp_path, column="photo")))
    expected = load(folder(top / "images", None, Scaling(SIDE), None).train, CPU)
    assert torch.equal(load(split, CPU), expected[split.rows])
    for wrong in ("id", "nothing"):
        assert f"data.column is {wrong}, but" in mistake(tmp_path / "plain", tmp_path, column=wrong)


def test_two_columns_of_images(top: Path, tmp_path: Path) -> None:
    whole = dataset_of(rows_of(top / "images", "train"))
    whole.add_column("other", whole.cast_column("image", datasets.Image(decode=False))["image"]).cast_column(
        "other", datasets.Image()
    ).save_to_disk(tmp_path / "two")
    message = mistake(tmp_path / "two", tmp_path)
    assert "has 2 columns of type Image, so name one: image (Image), label (ClassLabel), other (Image)" in message
    assert len(dataset(settings(tmp_path / "two", tmp_path, column="other")).train) == 24


# --- rows without a usable image


def test_rows_without_an_image_are_named_and_skipped(
    top: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    rows = rows_of(top / "images", "train")
    rows[3]["image"] = None
    rows[4]["image"] = {"bytes": b"", "path": "a\nb.jpg"}
    rows[7]["image"] = {"bytes": None, "path": str(tmp_path / "gone.jpg")}
    rows[8]["image"] = {"bytes": None, "path": None}
    damaged = rows[9]["image"]["path"]
    rows[9]["image"]["bytes"] = b"no image"
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")  # save_to_disk refuses such rows
    source = dataset(settings(tmp_path / "rows.parquet", tmp_path, column="image"))
    assert caplog.messages == [
        f"{tmp_path / 'rows.parquet'}: skipped 1 empty (row 4 of train (a?b.jpg)), "
        "1 missing file (row 7 of train (gone.jpg)), 2 without an image (row 3 of train, row 8 of train)"
    ]
    assert not {3, 4, 7, 8} & {*training(source).rows.tolist()}
    index = training(source).rows.tolist().index(9)
    assert (source.train[index] == 128).all()
    assert caplog.messages[1:] == [f"row 9 of train ({damaged}) can't be decoded, and is replaced by grey"]
    dataset_of([{"image": None, "label": "dog"}] * 3).save_to_disk(tmp_path / "nothing")
    assert "(3 without an image (row 0 of train, row 1 of train, row 2 of train))" in mistake(
        tmp_path / "nothing", tmp_path
    )


def test_a_file_that_is_gone_or_cut_ends_the_run_in_one_line(tmp_path: Path) -> None:
    root = images(tmp_path / "images", train=5, test=2)
    split = training(dataset(settings(root, tmp_path / "cache")))
    path = root / "train" / "cat" / "001.jpg"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RunError, match=r"has \d+ bytes, but had \d+ when the dataset was opened: restore it"):
        split.read(0)
    path.unlink()
    with pytest.raises(RunError, match=r"can't be read \(No such file or directory\): once it can be, the same"):
        split.read(0)


def test_a_table_that_is_cut_while_it_is_read_ends_the_run_in_one_line(top: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(top / "saved", tmp_path / "copy")
    split = training(dataset(settings(copy, tmp_path)))
    (file,) = (copy / "train").glob("*.arrow")
    os.truncate(file, 4096)
    sampler = Sampler(4, len(split), BATCH, True)
    loader = StreamingLoader(split, Share(sampler, ColorSpace("lab"), CPU, torch.float64, None, 0, 1), 1)
    with pytest.raises(RunError, match=rf"^{file} is truncated: restore the complete file$"):
        loader.micro_batches(0)
    loader.close()
    split = training(dataset(settings(top / "saved", tmp_path)))
    with pytest.raises(RunError, match=r"can't be read \(No such file or directory\): once it can be, the same"):
        replace(split, column=replace(split.column, files=("nowhere",), opened={})).read(0)


# --- what isn't there


def test_what_is_no_dataset_is_told_in_one_line(top: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "there is no" in mistake(tmp_path / "nowhere", tmp_path)
    assert "there is no" in mistake(tmp_path / "*.parquet", tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert "there is no empty/photos: name a" in mistake("empty/photos", tmp_path)  # isn't looked for on the Hub
    assert "there are no files in" in mistake(tmp_path / "empty", tmp_path)
    (tmp_path / "a.parquet").write_bytes(b"no Parquet")
    assert "can't be loaded (" in mistake(tmp_path / "a.parquet", tmp_path)
    (tmp_path / "a.csv").touch()
    assert "files of .csv, .parquet, but only" in mistake(tmp_path / "a.*", tmp_path)
    copy = shutil.copytree(top / "saved", tmp_path / "cut")
    (arrow,) = (copy / "train").glob("*.arrow")
    arrow.write_bytes(arrow.read_bytes()[:5000])
    assert "can't be loaded (" in mistake(copy, tmp_path)


OPEN = """
import sys
from colordist.errors import UserError
from colordist.data.sources.datasets import DatasetSettings, DatasetSource
for given in sys.argv[1:]:
    root, _, revision = given.partition("@")
    source = DatasetSource(DatasetSettings(source="datasets", root=root, revision=revision or None, image_size=16))
    try:
        print(source.missing() == "", source.open().digest)
    except UserError as error:
        print(error)
"""


def opened(*roots: str, **environment: str) -> list[str]:
    """Open datasets in a process of their own: the library reads its environment once. Returns a line for each."""
    command, known = [sys.executable, "-c", OPEN, *roots], {"PYTHONPATH": str(ROOT), "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(command, env=os.environ | known | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_settings_that_local_files_do_not_have_are_refused(top: Path, tmp_path: Path) -> None:
    for name, what in (("saved", "was saved by save_to_disk"), ("parquet/data/*.parquet", "names files")):
        assert what in mistake(top / name, tmp_path, config_name="english")
    assert "data.revision is v2, but data.root" in mistake(top / "images", tmp_path, revision="v2")


def test_an_empty_split_is_named(top: Path, tmp_path: Path) -> None:
    every = dataset_of(rows_of(top / "images", "train"))
    datasets.DatasetDict({"train": every, "test": every.select([])}).save_to_disk(tmp_path / "half")
    assert "one of its splits is empty" in mistake(tmp_path / "half", tmp_path)


def test_a_name_on_the_hub(top: Path, tmp_path: Path) -> None:
    """Downloaded once; then also without a network. Another name is told in one line either way."""
    expected, home = dataset(settings(top / "saved", tmp_path)).digest, str(tmp_path / "home")
    with dataset_hub(top / "parquet" / "data") as (url, downloads):
        (first, other, main) = opened("user/photos", "user/others", "user/photos@main", HF_ENDPOINT=url, HF_HOME=home)
    assert first == f"False {expected}"
    assert main == f"True {expected}"
    assert other.startswith("data.root: user/others can't be loaded (")
    assert other.endswith("check its name and the network, or name files that were downloaded before")
    assert sorted(downloads) == ["test-00000-of-00001.parquet", "train-00000-of-00001.parquet"]
    names = ["user/photos", f"user/photos@{'1' * 40}", "user/others", "user/photos@v2", f"user/photos@{'2' * 40}"]
    first, same, other, branch, commit = opened(*names, HF_HUB_OFFLINE="1", HF_HOME=home)
    assert first == same == f"True {expected}"
    assert all("user/photos can't be loaded (" in each for each in (branch, commit))  # the cache has another one
    assert other.startswith("data.root: user/others can't be loaded (Couldn't reach 'user/others' on the Hub")


def test_without_the_package(top: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    message = "data.source datasets needs the package datasets: pip install 'colordist[datasets]'"
    assert mistake(top / "saved", tmp_path) == message


def test_names_of_run_folders_depend_on_files_not_paths(top: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(top / "saved", tmp_path / "copy")
    one, other = (DatasetSource(settings(root, tmp_path)) for root in (top / "saved", copy))
    assert one.listing() == other.listing()
    assert one.missing() == ""
    (copy / "train" / "more.arrow").touch()
    assert one.listing() != other.listing()
    hub = [DatasetSource(settings("user/name", tmp_path, revision=each)) for each in (None, "v1")]
    assert hub[0].listing() != hub[1].listing()
    assert "doesn't hold user/name: compute nodes may have no internet" in hub[0].missing()


# --- whole runs


@pytest.mark.parametrize("task", ["autoencoder", "cyclegan"])
def test_a_run_killed_and_continued_from_another_form(
    task: str, top: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common: dict[str, Any] = {"task.name": task, "data__image_size": SIDE, "data__resize": 20, "data__crop": "random"}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    there = common | {"data__source": "datasets", "data__cache": str(tmp_path / "cache")}
    with alone_on_the_cpu(monkeypatch):
        straight = run(tmp_path / "straight", data__workers=0, data__root=str(top / "saved"), **there)
        killed = killed_run(
            tmp_path / "killed", monkeypatch, at=4, data__workers=2, data__root=str(top / "saved"), **there
        )
        run(tmp_path / "killed", data__workers=1, data__root=str(top / "parquet" / "data" / "*.parquet"), **there)
        same = run(tmp_path / "folder", data__source="folder", data__root=str(top / "images"), **common)
    assert learned(killed) == learned(straight) == learned(same)
    assert_bit_equal(killed, straight)
    assert straight.records()[0]["reference/constant/mae"] > 0


def test_other_images_are_another_run(top: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(top / "images", "train")
    for name, each in ("one", rows), ("other", rows[::-1]):
        dataset_of(each).save_to_disk(tmp_path / name)
    common = {"data__source": "datasets", "data__image_size": SIDE, "data__workers": 0}
    with alone_on_the_cpu(monkeypatch):
        run(tmp_path / "run", data__root=str(tmp_path / "one"), **common)
        with pytest.raises(UserError, match="the images have changed since"):
            run(tmp_path / "run", train__steps=8, data__root=str(tmp_path / "other"), **common)


def test_bytes_at_the_same_lengths_are_other_images(top: Path, tmp_path: Path) -> None:
    rows = rows_of(top / "images", "train")
    dataset_of(rows).save_to_disk(tmp_path / "one")
    content = rows[0]["image"]["bytes"]
    rows[0]["image"]["bytes"] = content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]
    dataset_of(rows).save_to_disk(tmp_path / "other")
    one, other = (dataset(settings(tmp_path / name, tmp_path)) for name in ("one", "other"))
    assert np.array_equal(training(one).lengths, training(other).lengths)
    assert one.digest != other.digest
