import hashlib
import io
import pickle
import socket
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import CIFAR10

from colordist.config import UserError
from colordist.data.cifar10 import ARCHIVE, URL, cifar10, download
from colordist.data.source import Split

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
BATCHES = ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"]
PER_BATCH = 20


def batch(number: int) -> bytes:
    """Image i is of class i % 10, red tells its place, its left half has no green and its lower half is blue."""
    images = np.zeros((PER_BATCH, 3, 32, 32), np.uint8)
    images[:, 0] = (number * PER_BATCH + np.arange(PER_BATCH))[:, None, None]
    images[:, 1, :, 16:] = 255
    images[:, 2, 16:] = 255
    labels = [index % 10 for index in range(PER_BATCH)]
    return pickle.dumps({"data": images.reshape(PER_BATCH, 3072), "labels": labels})


def checksum(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A small archive in the format of CIFAR-10; torchvision takes it for the real one and has no network."""
    contents = {name: batch(number) for number, name in enumerate(BATCHES)}
    contents["batches.meta"] = pickle.dumps({"label_names": CLASSES})
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in contents.items():
            entry = tarfile.TarInfo(f"{CIFAR10.base_folder}/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    sums = [[name, checksum(contents[name])] for name in BATCHES]
    monkeypatch.setattr(CIFAR10, "train_list", sums[:5])
    monkeypatch.setattr(CIFAR10, "test_list", sums[5:])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": checksum(contents["batches.meta"])})
    monkeypatch.setattr(CIFAR10, "tgz_md5", checksum(buffer.getvalue()))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{free.getsockname()[1]}/{ARCHIVE}")
    return buffer.getvalue()


@pytest.fixture
def root(archive: bytes, tmp_path: Path) -> Path:
    (tmp_path / ARCHIVE).write_bytes(archive)
    download(tmp_path)
    return tmp_path


def reds(split: Split) -> list[int]:
    return [int(split[index][0, 0, 0]) for index in range(len(split))]


def mistake(error: UserError) -> str:
    message = str(error)
    assert "\n" not in message
    return message


def test_names_are_those_of_torchvision() -> None:
    assert (CIFAR10.url, CIFAR10.filename) == (URL, ARCHIVE)


def test_all_classes(root: Path) -> None:
    source = cifar10(root, None, 32)
    assert source.name == "cifar10"
    assert reds(source.train) == list(range(100))
    assert reds(source.test) == list(range(100, 120))
    image = source.train[7]
    assert image.dtype == np.uint8
    assert image.shape == (32, 32, 3)
    assert image[0, 0].tolist() == [7, 0, 0]
    assert image[0, 31].tolist() == [7, 255, 0]
    assert image[31, 0].tolist() == [7, 0, 255]


def test_some_classes_in_the_published_order(root: Path) -> None:
    source = cifar10(root, ("horse", "airplane"), 32)
    assert reds(source.train)[:4] == [0, 7, 10, 17]
    assert (len(source.train), len(source.test)) == (20, 4)


@pytest.mark.parametrize("size", [16, 48])
def test_other_sizes(size: int, root: Path) -> None:
    image = cifar10(root, ("horse",), size).train[0]
    assert image.shape == (size, size, 3)
    assert image.dtype == np.uint8
    assert image[0, 0].tolist() == [7, 0, 0]
    assert image[-1, -1].tolist() == [7, 255, 255]


def test_unknown_class_names_the_nearest(root: Path) -> None:
    with pytest.raises(UserError) as caught:
        cifar10(root, ("cat", "hrose"), 32)
    assert "'hrose'" in mistake(caught.value)
    assert "'horse'" in mistake(caught.value)


def test_download_does_nothing_where_the_data_is(root: Path) -> None:
    (root / ARCHIVE).unlink()
    download(root)
    assert not (root / ARCHIVE).exists()


def test_download_mends_damaged_data_from_the_archive(root: Path) -> None:
    (root / CIFAR10.base_folder / "data_batch_3").write_bytes(b"damaged")
    with pytest.raises(UserError, match="not there, or damaged"):
        cifar10(root, None, 32)
    download(root)
    assert len(cifar10(root, None, 32).train) == 100


def check_ways_on(message: str, root: Path) -> None:
    for way in (URL, str(root / ARCHIVE), "--data.source folder --data.root DIR", "--data.source synthetic"):
        assert way in message


def test_no_internet(archive: bytes, tmp_path: Path) -> None:
    begin = time.monotonic()
    with pytest.raises(UserError) as caught:
        download(tmp_path / "new")
    assert time.monotonic() - begin < 10
    check_ways_on(mistake(caught.value), tmp_path / "new")
    assert "damaged" not in str(caught.value)


def test_silent_server(archive: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colordist.data.cifar10._TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{server.getsockname()[1]}/{ARCHIVE}")
        with pytest.raises(UserError, match="timed out"):
            download(tmp_path)
    assert socket.getdefaulttimeout() is None


def test_damaged_archive(archive: bytes, tmp_path: Path) -> None:
    (tmp_path / ARCHIVE).write_bytes(archive[:-100])
    with pytest.raises(UserError) as caught:
        download(tmp_path)
    check_ways_on(mistake(caught.value), tmp_path)
    assert f"{tmp_path / ARCHIVE} is damaged" in str(caught.value)


@pytest.mark.parametrize("content", [b"no archive", b"\x1f\x8b\x08\0\0\0\0\0\0\xffgarbage"])
def test_archive_that_cannot_be_unpacked(
    content: bytes, archive: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CIFAR10, "tgz_md5", checksum(content))
    (tmp_path / ARCHIVE).write_bytes(content)
    with pytest.raises(UserError) as caught:
        download(tmp_path)
    check_ways_on(mistake(caught.value), tmp_path)


def test_root_that_cannot_be_made(archive: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file"):
        download(tmp_path / "file" / "root")


def test_missing_data(archive: bytes, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        cifar10(tmp_path, None, 32)
    check_ways_on(mistake(caught.value), tmp_path)


def test_log_files_get_no_progress_bar(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (root / CIFAR10.base_folder / "test_batch").unlink()
    download(root)
    assert capfd.readouterr() == ("", "")
