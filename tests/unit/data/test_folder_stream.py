"""A folder larger than memory: read by workers, as it would be from memory."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import alone_on_the_cpu, tiny
from PIL import Image
from runs import assert_bit_equal, killed_run, learned, run
from small_images import SIDE, images

from colordist.color import ColorSpace
from colordist.data.batch import Batch, Share
from colordist.data.decode import Scaling, Undecodable, decode
from colordist.data.loader import load, load_resident, sample
from colordist.data.sampler import Sampler
from colordist.data.source import FlatSplit, Source, StreamedSplit, part_of_training
from colordist.data.sources import folder as module
from colordist.data.sources import folder_stream
from colordist.data.sources.folder import FolderSource, folder
from colordist.data.sources.folder_files import find
from colordist.data.sources.folder_stream import FolderSplit, training_bytes
from colordist.data.streaming import StreamingLoader
from colordist.errors import RunError
from colordist.training.batch_arithmetic import batch_arithmetic
from colordist.training.describe import describe

CPU = torch.device("cpu")
BATCH = 6
CENTRAL, WHOLE = Scaling(SIDE), Scaling(SIDE, 20, whole=True)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small images of two classes in several formats, among them a grey one, a panorama, and one that is damaged."""
    top = images(tmp_path_factory.mktemp("folder"))
    Image.new("L", (30, 20), 90).save(top / "train" / "cat" / "grey.jpg")
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, 8 * SIDE, 3), dtype=np.uint8)
    Image.fromarray(noise).save(top / "train" / "dog" / "panorama é.png")
    (top / "train" / "dog" / "damaged.jpg").write_bytes((top / "train" / "dog" / "000.jpg").read_bytes()[:300])
    return top


def both(root: Path, scaling: Scaling, cache: Path | None = None, **options: Any) -> tuple[Source, Source]:  # noqa: ANN401
    """The folder from memory, and streamed."""
    classes = options.pop("classes", None)
    return folder(root, classes, scaling, cache, **options), folder(
        root, classes, scaling, cache, max_memory=0, **options
    )


def streamed(source: Source) -> FolderSplit:
    assert isinstance(source.train, StreamedSplit)
    assert isinstance(source.train, FolderSplit)
    return source.train


def assert_equal(found: list[Batch], expected: list[Batch]) -> None:
    for one, other in zip(found, expected, strict=True):
        for name, value in vars(other).items():
            assert torch.equal(getattr(one, name), value), name


@pytest.mark.parametrize("unpaired", [False, True])
@pytest.mark.parametrize("scaling", [CENTRAL, WHOLE], ids=["central", "random"])
@pytest.mark.parametrize("workers", [0, 2])
def test_the_same_batches_as_from_memory(workers: int, scaling: Scaling, unpaired: bool, root: Path) -> None:
    resident, other = both(root, scaling)
    split = streamed(other)
    sampler = Sampler(4, len(split), BATCH, True, unpaired=unpaired, random_crops=scaling.whole)
    share = Share(sampler, ColorSpace("lab"), CPU, torch.float64, 2, 1, 2)
    expected, found = load_resident(resident.train, share), StreamingLoader(split, share, workers)
    for step in (0, 0, 1, 2, 3, 4, 40, 41, 7):
        assert_equal(found.micro_batches(step), expected.micro_batches(step))
    assert torch.equal(torch.cat(list(found.sample())), torch.cat(list(expected.sample())))
    found.close()


@pytest.mark.parametrize("scaling", [CENTRAL, WHOLE], ids=["central", "random"])
@pytest.mark.parametrize("options", [{}, {"classes": ("cat",)}, {"min_chroma": 3}], ids=str)
def test_the_same_images_classes_and_digest(scaling: Scaling, options: dict[str, Any], root: Path) -> None:
    resident, other = (part_of_training(source, 0.7, 1) for source in both(root, scaling, **options))
    assert other.digest == resident.digest
    assert len(other.train) == len(resident.train) > 5
    for one, two in (resident.train, other.train), (resident.test, other.test):
        assert torch.equal(load(one, CPU), load(two, CPU))


def test_the_second_start_decodes_nothing(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    first = folder(root, None, WHOLE, tmp_path, max_memory=0)
    said, pixels = caplog.messages, load(first.test, CPU)
    assert f"{root}: too large for data.max_memory_gb, so training images are decoded by data.workers" in said
    assert any("skipped 1 not a readable image (train/dog/damaged.jpg)" in line for line in said)
    assert any("1 of 28 training images are nearly grey" in line for line in said)
    (file,) = tmp_path.glob("*.npy")
    assert file.stat().st_size < 7 * 3 * SIDE**2 + 200  # the test images alone
    caplog.clear()
    monkeypatch.setattr(module, "decode", None)
    second = folder(root, None, WHOLE, tmp_path, max_memory=0)
    assert caplog.messages == said
    assert torch.equal(load(second.test, CPU), pixels)
    assert streamed(second).names.tolist() == streamed(first).names.tolist()


@pytest.mark.parametrize("suffix", [".npy", ".json"])
@pytest.mark.parametrize("limit", [0, float("inf")], ids=["streamed", "resident"])
def test_a_damaged_cache_is_written_anew(
    limit: float, suffix: str, root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = folder(root, None, WHOLE, tmp_path, max_memory=limit)
    expected = load(first.train, CPU), load(first.test, CPU)
    (path,) = tmp_path.glob(f"*{suffix}")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    second = folder(root, None, WHOLE, tmp_path, max_memory=limit)
    assert "is damaged: reading the images again" in caplog.text
    assert path.read_bytes() == whole
    assert all(map(torch.equal, (load(second.train, CPU), load(second.test, CPU)), expected))


def test_the_sample_is_spread_evenly(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colordist.data.loader._SAMPLE", 7)
    split = streamed(both(root, CENTRAL)[1])
    (found,) = sample(split, CPU)
    assert torch.equal(found, load(split, CPU)[[0, 4, 8, 12, 16, 20, 24]])


def test_size_by_hand(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = find(root, None)  # 29 files for training
    assert training_bytes(found, CENTRAL) == 29 * 3 * SIDE**2
    decoded = folder(root, None, WHOLE, None).train
    assert isinstance(decoded, FlatSplit)
    total = int(decoded.sizes.prod(axis=1).sum())
    assert training_bytes(found, WHOLE) == pytest.approx(3 * total * 29 / 28, abs=3 * 29)  # one is damaged
    monkeypatch.setattr(folder_stream, "_SAMPLE", 10)
    assert 0.5 < training_bytes(found, WHOLE) / (3 * total) < 2
    (tmp_path / "a.jpg").touch()
    assert training_bytes(find(tmp_path, None), WHOLE) == 3 * SIDE**2


def test_the_limit_decides(root: Path) -> None:
    size = training_bytes(find(root, None), CENTRAL)
    assert isinstance(folder(root, None, CENTRAL, None, max_memory=size).train, FlatSplit)
    assert isinstance(folder(root, None, CENTRAL, None, max_memory=size - 1).train, FolderSplit)


def test_a_dry_run_tells_it(root: Path) -> None:
    settings = {"data__source": "folder", "data__root": str(root), "data__image_size": SIDE, "data__fraction": 0.5}
    config = tiny(**settings)
    assert FolderSource(config.data).training_bytes() == round(29 * 3 * SIDE**2 / 2)
    told = describe(config, batch_arithmetic(config.train, 1)).splitlines()[-1]
    assert told.endswith("plus PyTorch itself and the images (0 MiB for training, 1 KiB for each test image)")
    config = tiny(data__max_memory_gb=0, **settings)
    told = describe(config, batch_arithmetic(config.train, 1)).splitlines()[-1]
    assert "the images (those for training streamed, 1 KiB for each test image)" in told


# --- files that change


def copied(tmp_path: Path) -> tuple[Path, FolderSplit]:
    top = images(tmp_path, train=5, test=2)
    return top, streamed(folder(top, None, CENTRAL, None, max_memory=0))


def test_a_file_that_is_gone_or_cut_ends_the_run_in_one_line(tmp_path: Path) -> None:
    top, split = copied(tmp_path)
    path = top / "train" / split.name(0).removeprefix("train/")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RunError, match=r"has \d+ bytes, but had \d+ when the images were read: restore it") as caught:
        split.read(0)
    assert "\n" not in str(caught.value)
    path.unlink()
    sampler = Sampler(4, len(split), BATCH, True)
    loader = StreamingLoader(split, Share(sampler, ColorSpace("lab"), CPU, torch.float64, None, 0, 1), 1)
    with pytest.raises(
        RunError, match=r"can't be read \(No such file or directory\): once it can be, the same command"
    ):
        loader.micro_batches(0)
    loader.close()


def test_a_test_image_that_is_gone_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    top, seen = images(tmp_path, train=5, test=2), set[Path]()

    def once(path: Path, size: int | None = None) -> Image.Image:
        if path in seen:
            raise Undecodable("unreadable")
        seen.add(path)
        return decode(path, size)

    monkeypatch.setattr(module, "decode", once)
    with pytest.raises(RunError, match=r"test/cat/001.jpg can't be read any more \(unreadable\): start again"):
        folder(top, None, CENTRAL, None, max_memory=0)


def test_a_file_that_rots_is_grey(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    top, split = copied(tmp_path)
    path = top / split.name(1)
    path.write_bytes(bytes(path.stat().st_size))
    assert split.read(1) is None
    assert (split[1] == 128).all()
    assert caplog.messages[-1] == f"{split.name(1)} can't be decoded, and is replaced by grey"


# --- whole runs


@pytest.mark.parametrize("task", ["autoencoder", "cyclegan"])
def test_a_run_streamed_killed_and_continued_from_memory(
    task: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    settings: dict[str, Any] = {"task.name": task, "data__source": "folder", "data__root": str(root)}
    settings |= {"data__image_size": SIDE, "data__resize": 20, "data__crop": "random", "data__min_chroma": 3.0}
    with alone_on_the_cpu(monkeypatch):
        resident = run(tmp_path / "resident", **settings)
        alone = run(tmp_path / "alone", data__max_memory_gb=0.0, data__workers=0, **settings)
        killed = killed_run(
            tmp_path / "killed", monkeypatch, at=4, data__max_memory_gb=0.0, data__workers=2, **settings
        )
        run(tmp_path / "killed", **settings)
    assert learned(killed) == learned(alone) == learned(resident)
    assert_bit_equal(killed, resident)
    assert_bit_equal(alone, resident)
