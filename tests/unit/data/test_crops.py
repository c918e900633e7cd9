"""Crops: positions by hand, the same ones from memory as of single images, and every offset within reach."""

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import alone_on_the_cpu
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from runs import assert_bit_equal, killed_run, learned, run
from torch import Tensor

from colordist.color import ColorSpace
from colordist.config import FileDataConfig
from colordist.data.batch import Share
from colordist.data.crops import corners, crop, offsets
from colordist.data.decode import Scaling, fit, fit_shorter
from colordist.data.loader import ResidentLoader, image_digest, load, load_resident
from colordist.data.sampler import Sampler
from colordist.data.source import ArraySplit, FlatSplit, ImageSource, Source, part_of_training
from colordist.data.sources import archive
from colordist.data.sources.folder import folder
from colordist.errors import UserError
from colordist.registry import register

CPU = torch.device("cpu")
SIDE = 4
SIZES = [(4, 4), (4, 9), (7, 4), (5, 6), (4, 32)]


def numbered(sizes: list[tuple[int, int]] = SIZES, side: int = SIDE) -> FlatSplit:
    """Images whose pixels are numbered throughout, so that each tells where it comes from."""
    shapes = np.array(sizes, np.int64)
    count = int(shapes.prod(axis=1).sum())
    pixels = np.stack([np.arange(count) // 256, np.arange(count) % 256, np.arange(count) % 7], axis=1)
    return FlatSplit.of(pixels.astype(np.uint8), shapes, side)


def numbers(rgb: Tensor) -> NDArray[np.int64]:
    """Numbers of the pixels: [B, 3, H, W] -> [B, H, W]."""
    wide = rgb.numpy().astype(np.int64)
    return wide[:, 0] * 256 + wide[:, 1]


def loader_of(
    split: FlatSplit, sampler: Sampler, micro: int | None = None, rank: int = 0, of: int = 1
) -> ResidentLoader:
    return load_resident(split, Share(sampler, ColorSpace("rgb"), CPU, torch.float64, micro, rank, of))


def sampler_of(split: FlatSplit, seed: int = 4, batch: int = 6, *, unpaired: bool = False) -> Sampler:
    return Sampler(seed, len(split), batch, True, random_crops=True, unpaired=unpaired)


# --- where


def test_corners_by_hand() -> None:
    sizes = np.array([[4, 9], [7, 4], [5, 6]], np.int64)
    positions = np.array([[0.99, 0.5], [0.74, 0.3], [0.49, 0.67]])
    assert corners(sizes, 4, positions).tolist() == [[0, 3], [2, 0], [0, 2]]
    assert corners(sizes, 4, 0.0).tolist() == [[0, 0]] * 3
    assert corners(sizes, 4, 1 - 2**-24).tolist() == [[0, 5], [3, 0], [1, 2]]
    assert offsets(sizes).tolist() == [0, 36, 64]


def test_a_crop_by_hand() -> None:
    image = np.arange(5 * 7).reshape(5, 7, 1).repeat(3, 2).astype(np.uint8)
    found = crop(image, 2, np.array([0.5, 0.99]))  # rows from 2 of 0 to 3, columns from 5 of 0 to 5
    assert found[..., 0].tolist() == [[19, 20], [26, 27]]
    assert crop(image, 5)[..., 0].tolist() == image[:, 1:6, 0].tolist()  # the centre
    assert np.shares_memory(found, image)


@given(
    sizes=st.lists(st.tuples(st.integers(3, 5000), st.integers(3, 5000)), min_size=1, max_size=20),
    side=st.integers(1, 3),
    positions=st.integers(0, 2**24 - 1),
)
def test_crops_lie_inside(sizes: list[tuple[int, int]], side: int, positions: int) -> None:
    shapes = np.array(sizes, np.int64)
    found = corners(shapes, side, positions * 2.0**-24)
    assert (found >= 0).all()
    assert (found + side <= shapes).all()


@settings(max_examples=30)
@given(extra=st.integers(0, 300))
def test_every_offset_is_reached_about_equally_often(extra: int) -> None:
    position = np.arange(0, 2**24, 997)[:, None] * 2.0**-24
    found = corners(np.full((len(position), 2), 8 + extra), 8, position.astype(np.float64))[:, 0]
    counts = np.bincount(found)
    assert len(counts) == extra + 1
    assert counts.max() - counts.min() <= 1


# --- which


def test_golden_positions() -> None:
    """Fixed for ever: if these move, no run can be continued or repeated."""
    step = Sampler(7, 10, 2, True, random_crops=True, unpaired=True).step(3)
    assert (step.crop * 2**24).astype(int).tolist() == GOLDEN_CROPS
    assert (step.target_crop * 2**24).astype(int).tolist() == GOLDEN_TARGET_CROPS


GOLDEN_CROPS = [[9101866, 8818579], [8099287, 10473537]]
GOLDEN_TARGET_CROPS = [[2848120, 15011440], [8157341, 1325373]]


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**40),
    length=st.integers(2, 40),
    batch=st.integers(1, 20),
    step=st.integers(0, 99),
    unpaired=st.booleans(),
)
def test_random_crops_change_nothing_else(seed: int, length: int, batch: int, step: int, unpaired: bool) -> None:
    cropped = Sampler(seed, length, batch, True, unpaired=unpaired, random_crops=True)
    found, plain = vars(cropped.step(step)), vars(dataclasses.replace(cropped, random_crops=False).step(step))
    for name, value in plain.items():
        if name in ("crop", "target_crop"):
            assert (value == 0.5).all()
            assert (found[name] >= 0).all()
            assert (found[name] < 1).all()
        else:
            assert np.array_equal(found[name], value)
    assert np.array_equal(found["crop"], found["target_crop"]) != unpaired


# --- from memory


@pytest.mark.parametrize("unpaired", [False, True])
def test_batches_are_the_crops_of_the_sampler(unpaired: bool) -> None:
    split = numbered()
    sampler = sampler_of(split, unpaired=unpaired)
    for step in range(4):
        (batch,), part = loader_of(split, sampler).micro_batches(step), sampler.step(step)
        for index, position, flip, target in zip(
            part.target_index, part.target_crop, part.target_flip, batch.target, strict=True
        ):
            expected = crop(split.uncropped(int(index)), SIDE, position)
            expected = expected[:, ::-1] if flip else expected
            assert torch.equal(
                ((target + 1) * 127.5).round().byte(), torch.from_numpy(expected.copy()).permute(2, 0, 1)
            )
        for index, position, flip, grey in zip(part.index, part.crop, part.flip, batch.grey, strict=True):
            expected = crop(split.uncropped(int(index)), SIDE, position)
            rgb = torch.from_numpy((expected[:, ::-1] if flip else expected).copy()).permute(2, 0, 1)[None]
            assert torch.equal(grey, ColorSpace("rgb").split(rgb, torch.float64)[0][0])


def test_every_crop_of_every_image_is_drawn() -> None:
    split = numbered()
    sampler = dataclasses.replace(sampler_of(split, batch=50), flip=False)
    loader, seen = loader_of(split, sampler), Counter[int]()
    for step in range(60):
        (batch,) = loader.micro_batches(step)
        seen.update(numbers(((batch.target + 1) * 127.5).round().byte())[:, 0, 0].tolist())
    starts = [
        int(first) + row * width + column
        for (height, width), first in zip(SIZES, offsets(np.array(SIZES)), strict=True)
        for row in range(height - SIDE + 1)
        for column in range(width - SIDE + 1)
    ]
    assert sorted(seen) == sorted(starts)


@settings(max_examples=30)
@given(
    sizes=st.lists(st.tuples(st.integers(4, 12), st.integers(4, 40)), min_size=2, max_size=9),
    seed=st.integers(0, 2**40),
    batch=st.integers(1, 9),
    step=st.integers(0, 50),
    of=st.integers(1, 4),
    micro=st.integers(1, 5),
    unpaired=st.booleans(),
)
def test_the_same_crops_on_any_number_of_processes(
    sizes: list[tuple[int, int]], seed: int, batch: int, step: int, of: int, micro: int, unpaired: bool
) -> None:
    split = numbered(sizes)
    sampler = sampler_of(split, seed, batch, unpaired=unpaired)
    (whole,) = loader_of(split, sampler).micro_batches(step)
    shares = [loader_of(split, sampler, micro, rank, of).micro_batches(step) for rank in range(of)]
    parts = [each for own in shares for each in own if len(each)]
    for name in ("grey", "target", "target_grey"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))
    for own in shares:
        rows = [row for each in own for row in each.share_index.tolist()]
        assert rows == list(range(len(rows)))


def test_squares_of_the_crops_size_are_the_images() -> None:
    split = numbered([(SIDE, SIDE)] * 5)
    sampler = sampler_of(split)
    found = loader_of(split, sampler)
    plain = ResidentLoader(load(split, CPU), found.share)
    for step in range(3):
        (one,), (other,) = found.micro_batches(step), plain.micro_batches(step)
        assert all(torch.equal(getattr(one, name), value) for name, value in vars(other).items())


def test_colour_statistics_are_of_central_crops() -> None:
    split = numbered()
    (sample,) = loader_of(split, sampler_of(split)).sample()
    assert torch.equal(sample, load(split, CPU))
    assert numbers(sample)[:, 0, 0].tolist() == [0, 16 + 3, 52 + 8, 80 + 6 + 1, 110 + 14]


def test_a_part_of_images_of_several_sizes() -> None:
    part = numbered().part(np.array([1, 3]))
    loader = loader_of(part, sampler_of(part))
    assert loader.layout is not None
    assert loader.layout.sizes.tolist() == [[4, 9], [5, 6]]
    assert numbers(loader.images.T[None, :, None])[0, 0].tolist() == [*range(16, 52), *range(80, 110)]


# --- of photographs


def photos(root: Path) -> Path:
    """Photos of several shapes: landscape, portrait, panorama, square, and one that is enlarged."""
    for number, (width, height) in enumerate(((40, 24), (24, 40), (160, 20), (32, 32), (12, 18), (23, 35), (48, 30))):
        for part in ("train", "test"):
            pixels = np.random.default_rng((number, len(part))).integers(0, 256, (height, width, 3), dtype=np.uint8)
            path = root / part / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return root


def test_photos_are_kept_whole(tmp_path: Path) -> None:
    source = folder(photos(tmp_path), None, Scaling(16, 20, whole=True), None)
    plain = folder(tmp_path, None, Scaling(16, 20), None)
    assert isinstance(source.train, FlatSplit)
    assert source.train.sizes.tolist() == [[20, 33], [33, 20], [20, 160], [20, 20], [30, 20], [30, 20], [20, 32]]
    assert image_digest(load(source.test, CPU)) == image_digest(load(plain.test, CPU))
    assert source.digest == plain.digest
    panorama = source.train.uncropped(2)
    assert np.array_equal(panorama, np.asarray(Image.open(tmp_path / "train" / "2.png")))


def test_a_fraction_of_photos(tmp_path: Path) -> None:
    source = part_of_training(folder(photos(tmp_path), None, Scaling(16, 20, whole=True), None), 0.5, 0)
    assert isinstance(source.train, FlatSplit)
    assert len(source.train) == 4
    assert {20} == set(source.train.sizes.min(axis=1).tolist())


def test_a_cached_folder_of_photos(tmp_path: Path) -> None:
    root, cache = photos(tmp_path / "root"), tmp_path / "cache"
    first, second = (folder(root, None, Scaling(16, 20, whole=True), cache) for _ in range(2))
    for one, other in (first.train, second.train), (first.test, second.test):
        assert isinstance(one, FlatSplit)
        assert isinstance(other, FlatSplit)
        assert all(np.array_equal(one.uncropped(i), other.uncropped(i)) for i in range(len(other)))
        assert len(one) == len(other) == 7
    for scaling in (Scaling(16, 21, whole=True), Scaling(16, 20), Scaling(16)):
        folder(root, None, scaling, cache)
    assert len(list(cache.glob("*.npy"))) == 4


@pytest.mark.parametrize("task", ["autoencoder", "cyclegan"])
def test_a_run_with_random_crops_killed_and_continued(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos(tmp_path / "photos")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    settings: dict[str, object] = {
        "task.name": task,
        "data__source": "folder",
        "data__root": str(tmp_path / "photos"),
        "data__image_size": 16,
        "data__resize": 20,
        "data__crop": "random",
    }
    with alone_on_the_cpu(monkeypatch):
        straight = run(tmp_path / "straight", **settings)
        killed = killed_run(tmp_path / "killed", monkeypatch, at=4, **settings)
        run(tmp_path / "killed", **settings)
        central = run(tmp_path / "central", **(settings | {"data__crop": "center"}))
        with pytest.raises(UserError, match=r"data\.crop"):
            run(tmp_path / "central", **settings, train__steps=9)
    assert learned(killed) == learned(straight)
    assert_bit_equal(killed, straight)
    assert learned(central) != learned(straight)


@register("source", "test_squares")
class Squares(ImageSource):
    """A source that ignores the keys of crops."""

    Settings = FileDataConfig

    def open(self) -> Source:
        """Noise."""
        images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8)
        return Source("squares", ArraySplit(images[4:]), ArraySplit(images[:4]))


def test_a_source_without_larger_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {"data__source": "test_squares", "data__image_size": 16}
    with alone_on_the_cpu(monkeypatch):
        for more in ({"data__crop": "random"}, {"data__resize": 17}):
            with pytest.raises(UserError, match=r"data\.source squares neither scales nor crops its images: leave out"):
                run(tmp_path, **settings, **more)


def test_an_archive_is_scaled_for_crops() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    split = archive._split(images, Scaling(8, 12, whole=True))
    assert split.sizes.tolist() == [[12, 12]] * 3
    assert np.array_equal(split.uncropped(1), fit_shorter(Image.fromarray(images[1]), 12))
    same = archive._split(images, Scaling(8))
    assert np.shares_memory(same.pixels, images)
    assert np.array_equal(archive._split(images, Scaling(8, 12))[2], fit(Image.fromarray(images[2]), 8, 12))


def test_scaling_by_hand() -> None:
    """Columns 0 to 9 twice as wide: central crops and whole images have the same pixels where both are exact."""
    ramp = Image.fromarray(np.arange(0, 240, 6).astype(np.uint8)[None, :, None].repeat(20, 0).repeat(3, 2))  # 40 x 20
    whole = fit_shorter(ramp, 10)
    assert whole.shape == (10, 20, 3)
    assert whole[5, 1:-1, 0].tolist() == [3 + 12 * column for column in range(1, 19)]
    assert fit(ramp, 6, 10)[3, :, 0].tolist() == [3 + 12 * column for column in range(7, 13)]
    assert fit(ramp, 10)[3, :, 0].tolist() == fit(ramp, 10, 10)[3, :, 0].tolist()
    long = Image.new("RGB", (2000, 10))
    assert fit_shorter(long, 20).shape == (20, 160, 3)
    assert fit_shorter(long.transpose(Image.Transpose.ROTATE_90), 5).shape == (40, 5, 3)


def test_settings_of_crops() -> None:
    assert FileDataConfig(resize=32) == FileDataConfig()
    with pytest.raises(UserError, match=r"data\.resize is 31, but must lie in \[32, 2048\]: try data\.resize 32"):
        FileDataConfig(resize=31)
