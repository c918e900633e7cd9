"""The loader: the plan's images, mirrored where it says so, whole or in portions, on any number of processes."""

from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from colordist.color import ColorSpace
from colordist.data.batch import Share
from colordist.data.loader import ResidentLoader, in_batches, load
from colordist.data.sampler import Sampler
from colordist.data.source import ArraySplit
from colordist.data.sources.synthetic import SyntheticSplit

COUNT, SIZE, BATCH = 10, 16, 6
IMAGES = torch.randint(0, 256, (COUNT, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def loader(
    *,
    flip: bool = True,
    space: Literal["lab", "rgb"] = "lab",
    dtype: torch.dtype = torch.float32,
    micro: int | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> ResidentLoader:
    sampler = Sampler(4, COUNT, BATCH, flip)
    return ResidentLoader(IMAGES, Share(sampler, ColorSpace(space), IMAGES.device, dtype, micro, rank, world_size))


@pytest.mark.parametrize("space", ["lab", "rgb"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_batches_are_the_plans_images(space: Literal["lab", "rgb"], dtype: torch.dtype) -> None:
    flipped = 0
    for step in range(4):
        (batch,) = loader(space=space, dtype=dtype).micro_batches(step)
        sample_slice = Sampler(4, COUNT, BATCH, True).step(step)
        assert len(batch) == BATCH
        for batch_index, (index, flip) in enumerate(zip(sample_slice.index, sample_slice.flip, strict=True)):
            image = IMAGES[int(index)]
            image = torch.from_numpy(image.numpy()[:, :, ::-1].copy()) if flip else image
            grey, color = ColorSpace(space).split(image[None], dtype)
            assert torch.equal(batch.grey[batch_index], grey[0])
            assert torch.equal(batch.target[batch_index], color[0])
            flipped += bool(flip)
    assert 0 < flipped < 4 * BATCH
    assert batch.grey.dtype == batch.target.dtype == dtype


def test_grey_and_color_belong_together() -> None:
    (batch,) = loader().micro_batches(0)
    assert batch.grey.shape == (BATCH, 1, SIZE, SIZE)
    assert batch.target.shape == (BATCH, 2, SIZE, SIZE)
    levels = (batch.grey + 1) * 127.5  # 8 bits and no more
    assert torch.allclose(levels, levels.round(), atol=1e-4)
    # In rgb, colour and grey of the same images, so the luma of one is the other.
    (colored,) = loader(space="rgb").micro_batches(0)
    red, green, blue = ((colored.target + 1) * 127.5).unbind(1)
    luma = (0.299 * red + 0.587 * green + 0.114 * blue)[:, None]
    assert (luma - levels).abs().max() <= 0.5 + 1e-3  # rounded


@pytest.mark.parametrize("space", ["lab", "rgb"])
def test_unpaired_batches(space: Literal["lab", "rgb"]) -> None:
    sampler = Sampler(4, COUNT, BATCH, True, unpaired=True)
    share = Share(sampler, ColorSpace(space), IMAGES.device, torch.float64, None, 0, 1)
    (batch,) = ResidentLoader(IMAGES, share).micro_batches(1)
    sample_slice = sampler.step(1)
    for index, flip, parts in (
        (sample_slice.index, sample_slice.flip, {0: batch.grey}),
        (sample_slice.target_index, sample_slice.target_flip, {0: batch.target_grey, 1: batch.target}),
    ):
        rgb = torch.stack(
            [IMAGES[i].flip(-1) if flipped else IMAGES[i] for i, flipped in zip(index, flip, strict=True)]
        )
        expected = ColorSpace(space).split(rgb, torch.float64)
        for part, found in parts.items():
            assert torch.equal(found, expected[part])
    assert batch.share_index.tolist() == list(range(BATCH))


def test_paired_grey_is_held_once() -> None:
    (batch,) = loader().micro_batches(0)
    assert batch.target_grey is batch.grey


def joined(parts: list[list[Tensor]]) -> Tensor:
    return torch.cat([tensor for part in parts for tensor in part])


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("micro", [None, 1, 2, 5])
def test_the_same_batch_on_any_number_of_processes(world_size: int, micro: int | None) -> None:
    for step in (0, 1):  # step 1 crosses into the second epoch
        (whole,) = loader().micro_batches(step)
        parts = [loader(rank=r, world_size=world_size, micro=micro).micro_batches(step) for r in range(world_size)]
        assert all(len(batch) <= (micro or BATCH) for part in parts for batch in part)
        assert torch.equal(joined([[batch.grey for batch in part] for part in parts]), whole.grey)
        assert torch.equal(joined([[batch.target for batch in part] for part in parts]), whole.target)


@pytest.mark.parametrize("flip", [True, False])
def test_images_that_are_too_many_to_be_held_converted_are_converted_in_each_step(
    flip: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, parts = loader(flip=flip).micro_batches(1), loader(flip=flip)
    assert loader(flip=flip).nbytes == IMAGES.nbytes * (9 if flip else 5)
    monkeypatch.setattr("colordist.data.loader._CONVERTED", {"cpu": IMAGES.numel() * 4 - 1})
    assert parts._converted is None
    assert parts.nbytes == IMAGES.nbytes
    for one, other in zip(held, parts.micro_batches(1), strict=True):
        assert all(torch.equal(value, vars(other)[name]) for name, value in vars(one).items())


def test_the_images_stay_as_they_are() -> None:
    before = IMAGES.clone()
    loader().micro_batches(0)
    assert torch.equal(IMAGES, before)


def test_load_keeps_order_and_pixels() -> None:
    split = SyntheticSplit(0, "test", 3, 16)
    images = load(split, torch.device("cpu"))
    assert images.shape == (3, 3, 16, 16)
    assert images.dtype == torch.uint8
    assert images.is_contiguous()
    for index in range(3):
        assert np.array_equal(images[index].permute(1, 2, 0).numpy(), split[index])


def test_load_copies() -> None:
    pixels = np.zeros((2, 4, 4, 3), np.uint8)
    images = load(ArraySplit(pixels), torch.device("cpu"))
    images += 1
    assert not pixels.any()


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
@pytest.mark.parametrize("length", [1, 7, 8, 9])
def test_in_batches_deals_out_every_image_once(length: int, world_size: int) -> None:
    parts = [list(in_batches(length, 4, rank, world_size)) for rank in range(world_size)]
    images = [i for part in parts for piece in part for i in range(piece.start, piece.stop)]
    assert sorted(images) == list(range(length))
    # Where a slice begins and ends doesn't depend on the number of processes.
    assert {(p.start, p.stop) for part in parts for p in part} == {(p.start, p.stop) for p in in_batches(length, 4)}
