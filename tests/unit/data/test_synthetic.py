"""The painted scenes: the same everywhere, colours that follow from grey, and objects whose colour cannot be told."""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from colordist.color import luma, srgb_to_lab
from colordist.data.source import Image, MaskedSplit
from colordist.data.sources.ambiguous import AMBIGUOUS_AB, GREYS, color_table
from colordist.data.sources.synthetic import SyntheticSettings, SyntheticSource, SyntheticSplit

Features = NDArray[np.float64]
Labels = NDArray[np.intp]
IMAGES = 900  # enough for some 1500 objects


def grey(image: Image) -> NDArray[np.uint8]:
    return luma(torch.from_numpy(image).movedim(-1, -3)).squeeze(-3).numpy()


def lab_ab(image: Image) -> Features:
    return srgb_to_lab(torch.from_numpy(image).movedim(-1, -3).double() / 255)[..., 1:, :, :].movedim(-3, -1).numpy()


@functools.cache
def painted() -> tuple[Image, NDArray[np.uint8], tuple[tuple[int, ...], ...]]:
    """Images, objects and choices of one split."""
    split = SyntheticSplit(7, "train", IMAGES, 32)
    scenes = [split.scene(index) for index in range(IMAGES)]
    choices = tuple(split.choices(index) for index in range(IMAGES))
    images = np.stack([scene.colored(chosen) for scene, chosen in zip(scenes, choices, strict=True)])
    return images, np.stack([scene.objects for scene in scenes]), choices


def chance_bound(count: int, probability: float) -> float:
    """How far a share of ``count`` draws may lie from its probability: four standard deviations."""
    return 4 * math.sqrt(probability * (1 - probability) / count)


# --- a pure function of its arguments ---------------------------------------------------------------------------------


@settings(max_examples=15)
@given(seed=st.integers(0, 2**63), index=st.integers(0, 99), size=st.integers(16, 80))
def test_same_arguments_same_bits(seed: int, index: int, size: int) -> None:
    first, second = (SyntheticSplit(seed, "test", 100, size) for _ in range(2))
    second[(index + 1) % 100]  # what was painted before leaves no trace
    image = first[index]
    assert image.dtype == np.uint8
    assert image.shape == (size, size, 3)
    assert np.array_equal(image, second[index])
    assert np.array_equal(first.objects(index), second.objects(index))
    assert first.choices(index) == second.choices(index)


def test_length_does_not_change_images() -> None:
    assert np.array_equal(SyntheticSplit(0, "train", 4, 32)[3], SyntheticSplit(0, "train", 4000, 32)[3])


def test_every_seed_split_and_index_shows_something_else() -> None:
    splits: tuple[Literal["train", "test"], ...] = ("train", "test")
    images = [
        SyntheticSplit(seed, split, 20, 16)[index].tobytes()
        for seed, split, index in itertools.product(range(3), splits, range(20))
    ]
    assert len(set(images)) == len(images)


@pytest.mark.parametrize("size", [16, 17, 33, 64, 128, 256, 512])
def test_sizes(size: int) -> None:
    split = SyntheticSplit(1, "train", 8, size)
    for index in range(2 if size > 100 else 8):
        assert split[index].shape == (size, size, 3)
        assert split.objects(index).shape == (size, size)


def test_a_scene_has_the_same_composition_at_any_size() -> None:
    small, large = SyntheticSplit(2, "train", 40, 32), SyntheticSplit(2, "train", 40, 128)
    for index in range(40):
        assert small.choices(index) == large.choices(index)
        shrunk = large[index].reshape(32, 4, 32, 4, 3).mean((1, 3))
        assert np.abs(shrunk - small[index]).mean() < 10  # of 255: grass is drawn finer, but no shape moves
        for number in range(1, len(small.choices(index)) + 1):
            here = np.argwhere(small.objects(index) == number).mean(0) / 32
            there = np.argwhere(large.objects(index) == number).mean(0) / 128
            assert np.abs(here - there).max() < 1.5 / 32


@pytest.mark.parametrize("index", [-1, 5, 10**9])
def test_indices_outside_are_refused(index: int) -> None:
    split = SyntheticSplit(0, "train", 5, 32)
    for ask in (split.__getitem__, split.objects, split.choices):
        with pytest.raises(IndexError):
            ask(index)


def test_source() -> None:
    source = SyntheticSource(SyntheticSettings(seed=3, image_size=24, train_images=5, test_images=2)).open()
    train: MaskedSplit = SyntheticSplit(3, "train", 5, 24)
    assert (source.name, len(source.train), len(source.test)) == ("synthetic", 5, 2)
    assert np.array_equal(source.train[1], train[1])
    assert not np.array_equal(source.train[1], source.test[1])


# --- the three colours ------------------------------------------------------------------------------------------------


def test_every_colour_has_exactly_the_grey_it_stands_for() -> None:
    greys = np.array(GREYS, np.uint8)
    for colors in color_table()[:, greys]:
        assert np.array_equal(grey(colors[None])[0], greys)


def test_colours_are_what_they_are_said_to_be() -> None:
    ab = lab_ab(color_table()[:, np.array(GREYS)])
    assert np.abs(ab.mean(1) - AMBIGUOUS_AB).max() < 0.05
    assert np.hypot(*(ab - np.array(AMBIGUOUS_AB)[:, None]).transpose(2, 0, 1)).max() < 0.5


def test_one_answer_for_three_vivid_colours_is_dull() -> None:
    ab = np.array(AMBIGUOUS_AB)
    vivid = np.hypot(*ab.T).min()
    assert vivid > 45
    assert np.hypot(*ab.mean(0)) < 0.05 * vivid
    assert np.hypot(*np.median(ab, 0)) < 0.05 * vivid
    assert min(np.hypot(*(one - two)) for one, two in itertools.combinations(ab, 2)) > 70


def test_grey_is_the_same_whichever_colours_are_chosen() -> None:
    for index in range(60):
        scene = SyntheticSplit(4, "train", 60, 32).scene(index)
        images = [scene.colored(choices) for choices in itertools.product(range(3), repeat=scene.count)]
        assert len({image.tobytes() for image in images}) == 3**scene.count
        assert len({grey(image).tobytes() for image in images}) == 1


# --- the ambiguous objects --------------------------------------------------------------------------------------------


def test_objects_have_the_colours_they_chose() -> None:
    images, objects, choices = painted()
    for ab, numbers, chosen in zip(lab_ab(images), objects, choices, strict=True):
        assert set(np.unique(numbers)) - {0} == set(range(1, len(chosen) + 1))
        for number, choice in enumerate(chosen, start=1):
            assert np.hypot(*(ab[numbers == number] - AMBIGUOUS_AB[choice]).T).max() < 0.5


def test_most_images_have_objects_and_all_are_large_enough_to_matter() -> None:
    _, objects, choices = painted()
    counts = np.array([len(chosen) for chosen in choices])
    assert 0.85 < (counts > 0).mean() < 1
    assert set(counts.tolist()) == {0, 1, 2, 3}
    areas = [(numbers == number).sum() for numbers in objects for number in np.unique(numbers) if number]
    assert min(areas) >= 20
    assert 40 < np.mean(areas) < 80
    assert 0.05 < (objects > 0).mean() < 0.15


def test_colours_are_equally_likely_and_independent() -> None:
    _, objects, choices = painted()
    drawn = np.array([choice for chosen in choices for choice in chosen])
    assert np.abs(np.bincount(drawn, minlength=3) / len(drawn) - 1 / 3).max() < chance_bound(len(drawn), 1 / 3)
    pairs = [chosen[:2] for chosen in choices if len(chosen) > 1]
    same = np.mean([first == second for first, second in pairs])
    assert abs(same - 1 / 3) < chance_bound(len(pairs), 1 / 3)
    left = np.array([centre(objects, where)[1] < 16 for where in every_object()])
    for side in (drawn[left], drawn[~left]):
        assert np.abs(np.bincount(side, minlength=3) / len(side) - 1 / 3).max() < chance_bound(len(side), 1 / 3)


def every_object() -> list[tuple[int, int]]:
    """Image and number of every object."""
    return [(image, number) for image, chosen in enumerate(painted()[2]) for number in range(1, len(chosen) + 1)]


def centre(objects: NDArray[np.uint8], where: tuple[int, int]) -> Labels:
    image, number = where
    middle: Features = np.argwhere(objects[image] == number).mean(0)
    return middle.round().astype(np.intp)


def linear(known: Features, labels: Labels, asked: Features) -> Labels:
    """The label of the largest of three ridge regressions."""
    weights = np.linalg.solve(known.T @ known + 50 * np.eye(known.shape[1]), known.T @ np.eye(3)[labels])
    return np.asarray((asked @ weights).argmax(1))


def distances(asked: Features, known: Features) -> Features:
    """Squared distances, less what all in a row have in common."""
    squares: Features = (known * known).sum(1)
    return squares - 2 * asked @ known.T


def nearest(known: Features, labels: Labels, asked: Features) -> Labels:
    """The label of the nearest known example."""
    return np.asarray(labels[distances(asked, known).argmin(1)])


@pytest.mark.parametrize("classify", [linear, nearest])
def test_no_classifier_tells_the_colour_from_grey(classify: Callable[[Features, Labels, Features], Labels]) -> None:
    images, objects, choices = painted()
    labels = np.array([choice for chosen in choices for choice in chosen])

    def accuracy(eval_batch: NDArray[np.uint8]) -> float:
        """Share of held-out objects whose colour is told from the 13x13 pixels around their centre, and the place."""
        padded = np.pad(eval_batch / 128.0 - 1, ((0, 0), (6, 6), (6, 6), (0, 0)))
        patches = []
        for where in every_object():
            row, column = centre(objects, where)
            patch = padded[where[0], row : row + 13, column : column + 13]
            patches.append(np.concatenate([patch.ravel(), [row / 16 - 1, column / 16 - 1, 1]]))
        features, half = np.stack(patches), len(patches) // 2
        return float((classify(features[:half], labels[:half], features[half:]) == labels[half:]).mean())

    assert abs(accuracy(grey(images)[..., None]) - 1 / 3) < chance_bound(len(labels) // 2, 1 / 3)
    assert accuracy(images) > 0.9  # the same classifier, shown the colours


def test_other_colours_follow_from_grey_and_place() -> None:
    images, objects, _ = painted()
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(grey(images) / 128.0, ((0, 0), (3, 3), (3, 3)), "edge"), (7, 7), axis=(1, 2)
    )
    colors, stream = lab_ab(images), np.random.default_rng(0)

    def error_ratio(inside: bool) -> float:
        """Mean absolute error of the nearest 15 pixels' median a, b over that of one constant a, b."""
        image, row, column = np.nonzero((objects > 0) == inside)
        some = stream.permutation(len(image))[:15000]
        image, row, column = image[some], row[some], column[some]
        features = np.concatenate([windows[image, row, column].reshape(len(some), -1), row[:, None] / 6], axis=1)
        known, asked = image < IMAGES * 0.9, image >= IMAGES * 0.9
        target = colors[image, row, column]
        similar = distances(features[asked], features[known]).argpartition(15, axis=1)[:, :15]
        error = np.abs(np.median(target[known][similar], axis=1) - target[asked]).mean()
        return float(error / np.abs(np.median(target[known], axis=0) - target[asked]).mean())

    assert error_ratio(inside=False) < 0.6
    assert error_ratio(inside=True) > 0.95
