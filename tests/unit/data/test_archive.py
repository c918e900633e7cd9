"""The sources that are published as archives, as made by the project in the same formats: torchvision reads them."""

import hashlib
import io
import pickle
import socket
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision import datasets

from colordist.data.decode import Scaling
from colordist.data.source import Split
from colordist.data.sources.archive import ARCHIVES, archive, download
from colordist.errors import UserError

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
PER_FILE = 20
FILES = {  # the last one is to be scored on
    "cifar10": ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"],
    "cifar100": ["train", "test"],
    "stl10": ["train", "test"],
}
SIZES = {"cifar10": 32, "cifar100": 32, "stl10": 96}
TRAIN = {name: PER_FILE * (len(files) - 1) for name, files in FILES.items()}
EACH = pytest.mark.parametrize("name", ARCHIVES)


def eval_batch(number: int, size: int) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], list[int]]:
    """Image i is of class i % 10, red tells its place, its left half has no green and its lower half is blue."""
    images = np.zeros((PER_FILE, 3, size, size), np.uint8)
    images[:, 0] = (number * PER_FILE + np.arange(PER_FILE))[:, None, None]
    images[:, 1, :, size // 2 :] = 255
    images[:, 2, size // 2 :] = 255
    return images, [index % 10 for index in range(PER_FILE)]


def cifar_files(name: str) -> dict[str, bytes]:
    """By name, as in the archives of CIFAR-10 and CIFAR-100."""
    key, meta = ("labels", "label_names") if name == "cifar10" else ("fine_labels", "fine_label_names")
    files = {}
    for number, file in enumerate(FILES[name]):
        images, labels = eval_batch(number, 32)
        files[file] = pickle.dumps({"data": images.reshape(PER_FILE, 3072), key: labels})
    return files | {"batches.meta" if name == "cifar10" else "meta": pickle.dumps({meta: CLASSES})}


def stl_files() -> dict[str, bytes]:
    """By name, as in the archive of STL-10: column by column, classes counted from 1."""
    files = {"class_names.txt": "\n".join(CLASSES).encode(), "unlabeled_X.bin": b"nobody reads this"}
    for number, file in enumerate(FILES["stl10"]):
        images, labels = eval_batch(number, 96)
        files[f"{file}_X.bin"] = images.transpose(0, 1, 3, 2).tobytes()
        files[f"{file}_y.bin"] = bytes(label + 1 for label in labels)
    return files


def checksum(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def published(name: str, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A small archive in the format of a data set; torchvision takes it for the real one and has no network."""
    kind, contents = getattr(datasets, ARCHIVES[name].dataset), stl_files() if name == "stl10" else cifar_files(name)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for file, content in contents.items():
            entry = tarfile.TarInfo(f"{ARCHIVES[name].unpacked}/{file}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    for part in ("train_list", "test_list"):
        sums = [[file, checksum(contents[file])] for file, _ in getattr(kind, part)]
        monkeypatch.setattr(kind, part, sums)
    if name != "stl10":
        monkeypatch.setattr(kind, "meta", kind.meta | {"md5": checksum(contents[kind.meta["filename"]])})
    monkeypatch.setattr(kind, "tgz_md5", checksum(buffer.getvalue()))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setattr(kind, "url", f"http://127.0.0.1:{free.getsockname()[1]}/{ARCHIVES[name].file}")
    return buffer.getvalue()


def unpacked(name: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds a data set."""
    root.mkdir(exist_ok=True)
    (root / ARCHIVES[name].file).write_bytes(published(name, monkeypatch))
    download(name, root)
    return root


def reds(split: Split) -> list[int]:
    return [int(split[index][0, 0, 0]) for index in range(len(split))]


def mistake(error: UserError) -> str:
    message = str(error)
    assert "\n" not in message
    return message


@EACH
def test_names_are_those_of_torchvision(name: str) -> None:
    kind, ours = getattr(datasets, ARCHIVES[name].dataset), ARCHIVES[name]
    assert (kind.url, kind.filename, kind.base_folder) == (ours.url, ours.file, ours.unpacked)


@EACH
def test_all_classes(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size, train = SIZES[name], TRAIN[name]
    source = archive(name, unpacked(name, tmp_path, monkeypatch), None, Scaling(size))
    assert source.name == name
    assert reds(source.train) == list(range(train))
    assert reds(source.test) == list(range(train, train + PER_FILE))
    image = source.train[7]
    assert image.dtype == np.uint8
    assert image.shape == (size, size, 3)
    assert image[0, 0].tolist() == [7, 0, 0]
    assert image[0, -1].tolist() == [7, 255, 0]
    assert image[-1, 0].tolist() == [7, 0, 255]


@EACH
def test_some_classes_in_the_published_order(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = archive(name, unpacked(name, tmp_path, monkeypatch), ("horse", "airplane"), Scaling(SIZES[name]))
    assert reds(source.train)[:4] == [0, 7, 10, 17]
    assert (len(source.train), len(source.test)) == (TRAIN[name] // 5, 4)


@EACH
@pytest.mark.parametrize("size", [16, 48])
def test_other_sizes(name: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = archive(name, unpacked(name, tmp_path, monkeypatch), ("horse",), Scaling(size)).train[0]
    assert image.shape == (size, size, 3)
    assert image.dtype == np.uint8
    assert image[0, 0].tolist() == [7, 0, 0]
    assert image[-1, -1].tolist() == [7, 255, 255]


@EACH
def test_unknown_class_names_the_nearest(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = unpacked(name, tmp_path, monkeypatch)
    with pytest.raises(UserError) as caught:
        archive(name, root, ("cat", "hrose"), Scaling(32))
    told = mistake(caught.value)
    assert "'hrose'" in told
    assert "'horse'" in told
    assert ARCHIVES[name].title in told


@EACH
def test_download_does_nothing_where_the_data_is(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = unpacked(name, tmp_path, monkeypatch)
    (root / ARCHIVES[name].file).unlink()
    download(name, root)
    assert not (root / ARCHIVES[name].file).exists()


@EACH
def test_download_mends_damaged_data_from_the_archive(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = unpacked(name, tmp_path, monkeypatch)
    first = getattr(datasets, ARCHIVES[name].dataset).train_list[0][0]
    (root / ARCHIVES[name].unpacked / first).write_bytes(b"damaged")
    with pytest.raises(UserError, match=f"data.source {name}: .*missing or damaged"):
        archive(name, root, None, Scaling(32))
    download(name, root)
    assert len(archive(name, root, None, Scaling(32)).train) == TRAIN[name]


def test_classes_that_have_no_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision doesn't look whether they are there."""
    root = unpacked("stl10", tmp_path, monkeypatch)
    (root / "stl10_binary" / "class_names.txt").unlink()
    with pytest.raises(UserError, match="missing or damaged"):
        archive("stl10", root, None, Scaling(32))


def check_ways_on(message: str, name: str, root: Path) -> None:
    ways = [ARCHIVES[name].url, str(root / ARCHIVES[name].file)]
    for way in (*ways, "--data.source folder --data.root DIR", "--data.source synthetic"):
        assert way in message


@EACH
def test_no_internet(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published(name, monkeypatch)
    begin = time.monotonic()
    with pytest.raises(UserError) as caught:
        download(name, tmp_path / "new")
    assert time.monotonic() - begin < 10
    check_ways_on(mistake(caught.value), name, tmp_path / "new")
    assert "damaged" not in str(caught.value)


def test_silent_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published("cifar10", monkeypatch)
    monkeypatch.setattr("colordist.files.download._TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/{ARCHIVES['cifar10'].file}"
        monkeypatch.setattr(datasets.CIFAR10, "url", url)
        with pytest.raises(UserError, match="timed out"):
            download("cifar10", tmp_path)
    assert socket.getdefaulttimeout() is None


@EACH
def test_damaged_archive(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / ARCHIVES[name].file
    file.write_bytes(published(name, monkeypatch)[:-100])
    with pytest.raises(UserError) as caught:
        download(name, tmp_path)
    check_ways_on(mistake(caught.value), name, tmp_path)
    assert f"{file} is damaged" in str(caught.value)


@pytest.mark.parametrize("content", [b"no archive", b"\x1f\x8b\x08\0\0\0\0\0\0\xffgarbage"])
def test_archive_that_cannot_be_unpacked(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published("cifar10", monkeypatch)
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", checksum(content))
    (tmp_path / ARCHIVES["cifar10"].file).write_bytes(content)
    with pytest.raises(UserError) as caught:
        download("cifar10", tmp_path)
    check_ways_on(mistake(caught.value), "cifar10", tmp_path)


def test_root_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file"):
        download("cifar10", tmp_path / "file" / "root")


@EACH
def test_missing_data(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        archive(name, tmp_path, None, Scaling(32))
    check_ways_on(mistake(caught.value), name, tmp_path)


def test_log_files_get_no_progress_bar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    root = unpacked("cifar10", tmp_path, monkeypatch)
    (root / ARCHIVES["cifar10"].unpacked / "test_batch").unlink()
    download("cifar10", root)
    assert capfd.readouterr() == ("", "")
