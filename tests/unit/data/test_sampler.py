"""The plan: a pure function of (seed, step) that no number of processes can change."""

from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from colordist.color import ColorSpace
from colordist.data import sampler as module
from colordist.data.batch import Share
from colordist.data.sampler import UNIFORMS, Sampler, SampleSlice, even_slices, share, stable_argsort, variant_noise


def test_golden_numbers() -> None:
    """Fixed for ever: if these move, no run can be continued or repeated."""
    sampler = Sampler(seed=7, length=10, global_batch_size=4, flip=True)
    steps = [sampler.step(step) for step in (0, 1, 2, 1000)]
    assert [step.index.tolist() for step in steps] == GOLDEN_INDEX
    assert [step.flip.astype(int).tolist() for step in steps] == GOLDEN_FLIP
    assert steps[1].uniforms[[0, 3], [0, UNIFORMS - 1]].tolist() == GOLDEN_UNIFORMS


GOLDEN_INDEX = [[6, 3, 4, 9], [0, 2, 8, 7], [5, 1, 5, 9], [0, 3, 9, 4]]
GOLDEN_HALVES = [[6, 9, 0, 5, 1], [4, 2, 3, 8, 7]]
GOLDEN_VARIANT = [0.35207422521725906, 0.005675546264341491]
GOLDEN_NOISE = [0.24167165718163863, -0.33113093874696053, 1.5784025177771623, 0.7079440892178466]
GOLDEN_UNPAIRED = [([5, 1, 6, 0], [4, 7, 8, 3]), ([9, 9, 0, 1], [2, 7, 4, 8])]
GOLDEN_UNIFORMS = [0.5231147408485413, 0.7910367846488953]
GOLDEN_FLIP = [[1, 0, 0, 0], [1, 1, 0, 1], [1, 1, 0, 1], [0, 0, 1, 0]]


def stretch(sampler: Sampler, epoch: int) -> list[int]:
    """The samples of one epoch, in order."""
    first, last = epoch * sampler.length, (epoch + 1) * sampler.length
    steps = range(first // sampler.global_batch_size, -(-last // sampler.global_batch_size))
    index = np.concatenate([sampler.step(step).index for step in steps])
    start = first - steps.start * sampler.global_batch_size
    return list(map(int, index[start : start + sampler.length]))


@settings(max_examples=50)
@given(seed=st.integers(0, 2**40), length=st.integers(1, 60), batch=st.integers(1, 80), epoch=st.integers(0, 1000))
def test_each_epoch_shows_every_image_once(seed: int, length: int, batch: int, epoch: int) -> None:
    assert sorted(stretch(Sampler(seed, length, batch, True), epoch)) == list(range(length))


@given(st.lists(st.integers(2**64 - 9, 2**64 - 1), max_size=40))
def test_equal_values_keep_their_order(values: list[int]) -> None:
    array = np.array(values, np.uint64)
    assert stable_argsort(array).tolist() == sorted(range(len(values)), key=values.__getitem__)


def test_each_epoch_and_seed_has_its_own_order() -> None:
    sampler = Sampler(0, 50, 20, True)
    orders = {tuple(stretch(sampler, epoch)) for epoch in range(5)} | {tuple(stretch(Sampler(1, 50, 20, True), 0))}
    assert len(orders) == 6
    assert tuple(range(50)) not in orders


def test_a_step_crosses_epochs() -> None:
    # Six images, four a step: step 1 shows the last two of epoch 0 and the first two of epoch 1.
    sampler = Sampler(3, 6, 4, True)
    crossing = sampler.step(1).index.tolist()
    assert crossing[:2] == stretch(sampler, 0)[4:]
    assert crossing[2:] == stretch(sampler, 1)[:2]
    # A batch larger than the data shows every image, some of them twice.
    assert sorted(Sampler(3, 3, 6, True).step(0).index.tolist()) == [0, 0, 1, 1, 2, 2]


def test_order_does_not_depend_on_the_batch_size_or_flips() -> None:
    assert stretch(Sampler(5, 30, 4, True), 2) == stretch(Sampler(5, 30, 7, False), 2)


def test_a_step_does_not_depend_on_those_before() -> None:
    sampler = Sampler(5, 30, 4, True)
    straight = [sampler.step(step) for step in range(20)]
    for step in (17, 3, 12):
        alone = Sampler(5, 30, 4, True).step(step)
        assert np.array_equal(alone.index, straight[step].index)
        assert np.array_equal(alone.flip, straight[step].flip)


@st.composite
def samplers(draw: st.DrawFn) -> Sampler:
    """Samplers of all kinds."""
    return Sampler(
        draw(st.integers(0, 2**40)),
        draw(st.integers(2, 90)),
        draw(st.integers(1, 90)),
        draw(st.booleans()),
        noise_shape=(2, 3),
        unpaired=draw(st.booleans()),
        random_crops=draw(st.booleans()),
    )


@settings(max_examples=150)
@given(
    sampler=samplers(),
    world_size=st.integers(1, 70),
    micro=st.none() | st.integers(1, 40),
    step=st.integers(0, 500),
)
def test_each_process_draws_its_slice_of_the_whole(
    sampler: Sampler, world_size: int, micro: int | None, step: int
) -> None:
    """Bit for bit: order, flips, crops, uniforms, noise. So on any number of processes, in any micro-batches."""
    whole = sampler.step(step)
    assert len(whole) == sampler.global_batch_size
    noise, hints = sampler.noise(step, whole), sampler.hint_uniforms(step, whole)
    for rank in range(world_size):
        own = share(len(whole), rank, world_size)
        assert_equal(sampler.step(step, own), whole[own])
        local = Share(sampler, ColorSpace("lab"), torch.device("cpu"), torch.float32, micro, rank, world_size)
        start = own.start
        for part in local.sample_slices(step):
            rows = slice(start, start + len(part))
            assert_equal(part, whole[rows])
            assert len(part) == 0 or np.array_equal(sampler.noise(step, part), noise[rows])
            assert len(part) == 0 or np.array_equal(sampler.hint_uniforms(step, part), hints[rows])
            start = rows.stop
        assert start == own.stop


def assert_equal(found: SampleSlice, expected: SampleSlice) -> None:
    for name, value in vars(expected).items():
        assert vars(found)[name].dtype == value.dtype, name
        assert np.array_equal(vars(found)[name], value), name


def test_each_epoch_is_shuffled_once_and_ahead() -> None:
    sampler, drawn = Sampler(11, 12, 4, True), module._order.cache_info
    for step, begun in enumerate([2, 0, 0, 1, 0, 0, 1]):  # three steps an epoch
        before = drawn().misses
        sampler.step(step)
        assert drawn().misses - before == begun, step


def test_a_slice_costs_nothing_of_the_rest() -> None:
    """The whole batch would take 100 TB."""
    sampler = Sampler(7, 10, 2**40, True, noise_shape=(2, 3), random_crops=True)
    last = sampler.step(1, slice(2**40 - 3, 2**40))
    assert (len(last), int(last.batch_index[-1])) == (3, 2**40 - 1)
    assert np.isfinite(sampler.noise(1, last)).all()


@settings(max_examples=50)
@given(seed=st.integers(0, 2**40), length=st.integers(2, 60), batch=st.integers(1, 40))
def test_unpaired_no_image_is_seen_in_both_forms(seed: int, length: int, batch: int) -> None:
    sampler = Sampler(seed, length, batch, True, unpaired=True)
    steps = [sampler.step(step) for step in range(-(-length // batch))]  # enough for an epoch of either half
    grey, colored = (
        set(np.concatenate(each).tolist()) for each in zip(*((s.index, s.target_index) for s in steps), strict=True)
    )
    assert not grey & colored
    assert grey | colored == set(range(length))
    assert 0 <= len(colored) - len(grey) <= 1


def test_unpaired_each_has_its_own_order_and_flips() -> None:
    """Golden numbers, too: fixed for ever."""
    sampler = Sampler(7, 10, 4, True, unpaired=True)
    assert [half.tolist() for half in sampler.halves()] == GOLDEN_HALVES
    assert [(step.index.tolist(), step.target_index.tolist()) for step in map(sampler.step, (0, 1))] == GOLDEN_UNPAIRED
    many = [sampler.step(step) for step in range(200)]
    flips, truth_flips = (np.concatenate(each) for each in zip(*((s.flip, s.target_flip) for s in many), strict=True))
    assert abs(np.corrcoef(flips, truth_flips)[0, 1]) < 4 / 800**0.5
    assert 0.4 < truth_flips.mean() < 0.6
    for half, index in zip(sampler.halves(), zip(*((s.index, s.target_index) for s in many), strict=True), strict=True):
        epochs = np.concatenate(index).reshape(-1, 5)
        assert (np.sort(epochs) == np.sort(half)).all()  # each shows every image once
        assert len({tuple(epoch) for epoch in epochs}) > 50


def test_paired_the_truth_is_of_the_same_image() -> None:
    step = Sampler(7, 10, 4, True).step(3)
    assert np.array_equal(step.index, step.target_index)
    assert np.array_equal(step.flip, step.target_flip)
    assert step.batch_index.tolist() == [0, 1, 2, 3]
    assert step[1:3].batch_index.tolist() == [1, 2]


def test_the_noise_of_a_variant_depends_on_image_and_variant_alone() -> None:
    drawn = np.array([[variant_noise(image, variant, (8,)) for variant in range(4)] for image in range(500)])
    assert np.array_equal(variant_noise(7, 2, (2, 4)).flatten(), drawn[7, 2])
    assert len(np.unique(drawn)) > 0.99 * drawn.size
    assert abs(drawn.mean()) < 4 / 16000**0.5
    assert abs(drawn.var() - 1) < 4 * (2 / 16000) ** 0.5
    assert variant_noise(0, 1, (2,)) == pytest.approx(GOLDEN_VARIANT, abs=1e-12)  # scores stay comparable for ever


def test_noise_is_normal_and_chance_uniform_whatever_is_drawn_besides() -> None:
    sampler = Sampler(0, 100, 500, True, noise_shape=(4, 8))
    sample_slice = sampler.step(3)
    noise = sampler.noise(3, sample_slice)
    assert noise.shape == (500, 4, 8)
    assert noise[0, 0, :2] == pytest.approx(GOLDEN_NOISE[:2], abs=1e-12)
    assert noise[499, 3, 6:] == pytest.approx(GOLDEN_NOISE[2:], abs=1e-12)
    assert sample_slice.uniforms.shape == (500, UNIFORMS)
    # 16,000 and 4,000 numbers: means within 4 standard errors.
    assert abs(noise.mean()) < 4 / 16000**0.5
    assert abs(noise.var() - 1) < 4 * (2 / 16000) ** 0.5
    assert abs(sample_slice.uniforms.mean() - 0.5) < 4 * (1 / 12 / 4000) ** 0.5
    assert 0 <= sample_slice.uniforms.min() < 0.01
    assert 0.99 < sample_slice.uniforms.max() < 1
    assert np.array_equal(sample_slice.uniforms.astype(np.float32), sample_slice.uniforms)
    assert np.abs(np.corrcoef(noise.reshape(500, -1).T) - np.eye(32)).max() < 5 / 500**0.5
    without = Sampler(0, 100, 500, True).step(3)
    assert np.array_equal(without.uniforms, sample_slice.uniforms)
    assert np.array_equal(without.index, sample_slice.index)
    assert not np.array_equal(sampler.noise(4, sample_slice), noise)


def test_about_half_are_flipped() -> None:
    sampler = Sampler(0, 100, 100, True)
    flips = np.stack([sampler.step(step).flip for step in range(100)])
    # 10,000 fair coins: a standard deviation of 50; each place in the batch, 100 coins: 5.
    assert abs(int(flips.sum()) - 5000) < 4 * 50
    assert np.abs(flips.sum(axis=0) - 50).max() < 5 * 5
    index = np.stack([sampler.step(step).index for step in range(100)])
    of_image_0 = flips[index == 0]  # not the same each time
    assert 25 < of_image_0.sum() < 75


def test_no_flips_unless_wanted() -> None:
    assert not any(Sampler(0, 10, 32, False).step(step).flip.any() for step in range(20))


@given(total=st.integers(0, 500), world_size=st.integers(1, 70))
def test_shares_are_even_and_complete(total: int, world_size: int) -> None:
    shares = [list(range(total))[share(total, rank, world_size)] for rank in range(world_size)]
    assert list(chain.from_iterable(shares)) == list(range(total))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(total=st.integers(1, 300), most=st.none() | st.integers(1, 400))
def test_micro_batches_are_few_even_and_complete(total: int, most: int | None) -> None:
    parts = [list(range(total))[part] for part in even_slices(total, most)]
    assert list(chain.from_iterable(parts)) == list(range(total))
    sizes = list(map(len, parts))
    assert max(sizes) <= (most or total)
    assert max(sizes) - min(sizes) <= 1
    assert (len(parts) - 1) * (most or total) < total  # one less would not do


@pytest.mark.parametrize(
    ("total", "most", "slices"),
    [
        (10, None, [slice(0, 10)]),
        (10, 4, [slice(0, 3), slice(3, 6), slice(6, 10)]),
        (4, 9, [slice(0, 4)]),
        (3, 1, [slice(0, 1), slice(1, 2), slice(2, 3)]),
    ],
)
def test_micro_batches_by_hand(total: int, most: int | None, slices: list[slice]) -> None:
    assert even_slices(total, most) == slices
