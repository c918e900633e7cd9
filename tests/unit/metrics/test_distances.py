"""Distances between two sets of features: by hand, by definition, and what may not change them."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from torch import Tensor

from colordist.metrics import kernel
from colordist.metrics.features import distances, distances_and_interval
from colordist.metrics.frechet import frechet
from colordist.metrics.kernel import kernel_distance, kernel_interval, resamples


def rows(seed: int, count: int, width: int) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- Fréchet


def test_in_one_dimension() -> None:
    """Means 1 and 5; variances (1 + 0 + 1) / 2 = 1 and (9 + 0 + 9) / 2 = 9: (5 - 1)^2 + (3 - 1)^2 = 20."""
    one, other = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[2.0], [5.0], [8.0]])
    assert frechet(one.double(), other.double()) == pytest.approx(20, rel=1e-12)


def test_in_two_dimensions() -> None:
    """Corners of a rectangle and of the same, turned by 90 degrees: variances (4, 16) and (16, 4), all times 4/3.

    Covariances that commute: 2 (4 - 2)^2 times 4/3.
    """
    one = torch.tensor([[-2.0, -4.0], [-2, 4], [2, -4], [2, 4]], dtype=torch.float64)
    assert frechet(one, one.flip(1)) == pytest.approx(2 * 4 * 4 / 3, rel=1e-12)


def test_covariances_that_do_not_commute() -> None:
    one, other = rows(0, 200, 6) @ rows(1, 6, 6), rows(2, 300, 6) @ rows(3, 6, 6) + 1
    c, d = torch.cov(one.T), torch.cov(other.T)
    root = torch.from_numpy(sqrtm((c @ d).numpy()).real)
    expected = (one.mean(0) - other.mean(0)).square().sum() + (c + d - 2 * root).trace()
    assert frechet(one, other) == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize("count", [3, 50])
def test_equal_sets_and_a_shift(count: int) -> None:
    """Also where there are fewer images than numbers an image, so that the covariance has no inverse."""
    one = rows(0, count, 8)
    assert frechet(one, one.clone()) == pytest.approx(0, abs=1e-12)
    assert frechet(one, one + torch.tensor([3.0] + 7 * [0])) == pytest.approx(9, rel=1e-12)


# --- kernel


def naive(one: Tensor, other: Tensor) -> float:
    """Gretton et al. 2012, eq. 4, as it stands."""
    n, width = one.shape

    def k(x: Tensor, y: Tensor) -> float:
        return (float(x @ y) / width + 1) ** 3

    total = 0.0
    for i in range(n):
        for j in range(n):
            if i != j:
                total += k(one[i], one[j]) + k(other[i], other[j]) - k(one[i], other[j]) - k(one[j], other[i])
    return total / (n * (n - 1))


@pytest.mark.parametrize("sample_slice", [1, 5, 500])
def test_as_defined(sample_slice: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_ROWS", sample_slice)
    one, other = rows(0, 12, 3), rows(1, 12, 3) * 2 + 0.5
    assert kernel_distance(one, other) == pytest.approx(naive(one, other), rel=1e-12)


def test_equal_sets_are_at_zero() -> None:
    one = rows(0, 40, 5)
    assert kernel_distance(one, one.clone()) == 0


def test_by_hand() -> None:
    """(0, 2) against (1, 1), one number an image: k(0, 2) = 1, k(1, 1) = 8, k(0, 1) = 1, k(2, 1) = 27.

    Pairs (1, 2) and (2, 1): 1 + 8 - 1 - 27 each.
    """
    one, other = torch.tensor([[0.0], [2.0]], dtype=torch.float64), torch.ones(2, 1, dtype=torch.float64)
    assert kernel_distance(one, other) == pytest.approx(1 + 8 - 1 - 27)


def test_no_bias() -> None:
    """Small sets of the same distribution lie at 0 on average, also if image i of both is nearly the same one."""
    found = []
    for seed in range(400):
        one = rows(seed, 8, 4)
        found.append(kernel_distance(one, 0.9 * one + math.sqrt(1 - 0.9**2) * rows(seed + 1000, 8, 4)))
    values = torch.tensor(found)
    assert abs(values.mean()) < 3 * values.std() / math.sqrt(len(values))


def test_of_many_images_an_even_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "MOST", 4)
    one, other = rows(0, 10, 3), rows(1, 10, 3)
    chosen = [0, 2, 5, 7]
    assert kernel_distance(one, other) == kernel_distance(one[chosen], other[chosen])


# --- the kernel distance's interval


def test_interval_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """(0, 1, 2) against (0, 0, 0), one number an image: k(1, 2) = 27, all others 1; so only that pair counts.

    2 k + 2 - 4 = 52 for it in both orders. Drawn once each, 52 / 6; one of them twice, 2 * 52 / 4 (of three images, 4
    pairs are of two); without one of them, 0; one image three times has no pair.
    """
    counts = torch.tensor([[0, 1, 2], [1, 1, 1], [2, 1, 0], [3, 0, 0]], dtype=torch.float64)
    monkeypatch.setattr(kernel, "resamples", lambda images: counts)
    one = torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64)
    found = kernel_interval(one, torch.zeros_like(one))
    assert found == pytest.approx((52 / 6, 0.05 * 52 / 6, 52 / 6 + 0.95 * (26 - 52 / 6)), rel=1e-12)


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.lists(st.integers(0, 6), min_size=7, max_size=7).filter(lambda each: len({*each}) > 1))
def test_a_resample_as_defined(seed: int, drawn: list[int]) -> None:
    """As the rows written out, without the pairs of a row and its copy."""
    one, other = rows(seed, 7, 3), rows(seed + 1, 7, 3) * 2
    total, pairs = 0.0, 0
    for i in drawn:
        for j in drawn:
            if i != j:
                total += naive(one[[i, j]], other[[i, j]])
                pairs += 1
    counts = torch.bincount(torch.tensor(drawn), minlength=7).double()
    found = kernel._weighted(one, other, counts.unsqueeze(0))
    assert float(found) == pytest.approx(total / pairs, rel=1e-9, abs=1e-9)


def test_resamples_are_draws_with_replacement_and_the_same_every_time() -> None:
    counts = resamples(40)
    assert torch.equal(counts, resamples(40))
    assert set(counts.sum(dim=1).tolist()) == {40.0}
    assert float(counts.var(dim=0).mean()) == pytest.approx(1 - 1 / 40, rel=0.05)  # binomial


def test_resamples_are_centred_at_the_distance() -> None:
    one, other = rows(0, 60, 4), rows(1, 60, 4) + 0.3
    found = kernel._weighted(one, other, resamples(60))
    assert abs(found.mean() - kernel_distance(one, other)) < 4 * found.std() / math.sqrt(len(found))


def test_the_interval_covers_the_true_distance_as_often_as_it_says() -> None:
    """Normal features with unit variance, shifted in each of D dimensions: E (u + 1)^3 = 1 + 3 E u + 3 E u^2 + E u^3 of
    u = x.y / D, by the moments of independent x and y.
    """
    width, shift, trials = 4, 0.6, 200

    def moment(a: float, b: float) -> float:
        """E (x.y / D + 1)^3 of x with mean a and y with mean b in each dimension."""
        first = a * b
        second = ((1 + a * a) * (1 + b * b) + (width - 1) * first**2) / width
        cubes = (a**3 + 3 * a) * (b**3 + 3 * b)
        squares = (1 + a * a) * (1 + b * b) * first
        third = (cubes + 3 * (width - 1) * squares + (width - 1) * (width - 2) * first**3) / width**2
        return 1 + 3 * first + 3 * second + third

    true = moment(0, 0) + moment(shift, shift) - 2 * moment(0, shift)
    hits = 0
    for seed in range(trials):
        one = rows(seed, 150, width)
        _, low, high = kernel_interval(one, 0.8 * one + 0.6 * rows(seed + trials, 150, width) + shift)
        hits += low <= true <= high
    assert 0.90 <= hits / trials <= 0.99


def test_equal_sets_have_an_interval_of_zero() -> None:
    one = rows(0, 40, 5)
    assert kernel_interval(one, one.clone()) == (0, 0, 0)


# --- both


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.permutations(range(9)))
def test_the_order_of_images_does_not_count(seed: int, order: list[int]) -> None:
    one, other = rows(seed, 9, 3), rows(seed + 1, 9, 3) * 3
    assert frechet(one[order], other) == pytest.approx(frechet(one, other), rel=1e-9)
    assert kernel_distance(one[order], other[order]) == pytest.approx(kernel_distance(one, other), rel=1e-9)


@settings(max_examples=20)
@given(st.integers(0, 2**32))
def test_both_ways_alike(seed: int) -> None:
    one, other = rows(seed, 9, 3), rows(seed + 1, 9, 3) * 3
    assert frechet(one, other) == pytest.approx(frechet(other, one), rel=1e-9)
    assert kernel_interval(one, other) == pytest.approx(kernel_interval(other, one), rel=1e-9)


def test_a_single_image_is_no_set() -> None:
    assert math.isnan(frechet(rows(0, 1, 3), rows(1, 1, 3)))
    assert math.isnan(kernel_distance(rows(0, 1, 3), rows(1, 1, 3)))
    assert all(map(math.isnan, kernel_interval(rows(0, 1, 3), rows(1, 1, 3))))


def test_the_number_of_threads_does_not_count() -> None:
    one, other, found, before = rows(0, 200, 128), rows(1, 200, 128), [], torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(distances(one, other) + distances_and_interval(one, other))
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    assert found[0] == found[1] == found[2]
    assert found[0][:2] == pytest.approx(found[0][2:4], rel=1e-12)
