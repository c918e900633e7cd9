import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from colordist.color import lab_to_srgb, luma, srgb_to_lab, to_8_bits
from colordist.metrics import METRICS, EvalBatch, Metric, Scorer
from colordist.metrics.accuracy import ACCURACY2, ACCURACY5
from colordist.metrics.baselines import REFERENCES, constant, grey, median_ab, oracle
from colordist.metrics.ciede2000 import CIEDE2000, ciede2000
from colordist.metrics.colorfulness import COLORFULNESS, COLORFULNESS_GAP, colorfulness
from colordist.metrics.histogram import HISTOGRAM
from colordist.metrics.mae import MAE
from colordist.metrics.metric import rgb_to_lab
from colordist.metrics.psnr import PSNR, PSNR_SET
from colordist.metrics.ssim import SSIM
from colordist.metrics.table import table
from colordist.metrics.unsigned_colorfulness import CF, DELTA_CF, unsigned_colorfulness
from colordist.metrics.variants import CIEDE2000_BEST, CIEDE2000_MEAN, DIVERSITY
from colordist.metrics.vivid import rarest, vivid

COLORS = ((50.0, 0.0), (-25.0, 43.0), (-25.0, -43.0))
VIVID, RAREST = vivid(COLORS), rarest(COLORS)
ALL = (*METRICS, VIVID, RAREST)
PERFECT = {
    "mae": 0,
    "psnr": 100,
    "psnr_set": 100,
    "ssim": 1,
    "accuracy2": 100,
    "accuracy5": 100,
    "ciede2000": 0,
    "colorfulness_gap": 0,
    "histogram": 1,
}


def noise(seed: int, *shape: int) -> Tensor:
    """Uniform uint8 colours."""
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def near(images: Tensor, seed: int, most: int = 20) -> Tensor:
    """The same images with up to `most` levels added or taken away."""
    offsets = torch.randint(-most, most + 1, images.shape, generator=torch.Generator().manual_seed(seed))
    return (images + offsets).clamp(0, 255).to(torch.uint8)


def plain(*levels: int, size: int = 12) -> Tensor:
    """One image of one colour."""
    return torch.tensor(levels, dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, size, size).contiguous()


def of_lab(lightness: float, a: float, b: float, size: int = 12) -> Tensor:
    lab = torch.tensor([lightness, a, b], dtype=torch.float64).view(1, 3, 1, 1)
    return to_8_bits(lab_to_srgb(lab)).expand(1, 3, size, size).contiguous()


def score(metric: Metric, prediction: Tensor, target: Tensor, objects: Tensor | None = None) -> float:
    return metric.score(metric.sums(EvalBatch(prediction, target, objects)))


# Those that compare one prediction with the target: the others need marked objects, or several predictions.
PAIRED = {m.name for m in METRICS} - {"ciede2000_mean", "ciede2000_best", "diversity"}

# --- what holds for every metric


@pytest.mark.parametrize("metric", [m for m in METRICS if m.name in PAIRED], ids=lambda metric: metric.name)
def test_the_target_is_the_perfect_prediction(metric: Metric) -> None:
    target = noise(0, 3, 3, 16, 16)
    perfect = PERFECT.get(metric.name, score(COLORFULNESS, target, target))
    assert score(metric, target, target) == pytest.approx(perfect, abs=1e-9)
    if metric.better != "target":
        worse = score(metric, noise(1, 3, 3, 16, 16), target)
        assert worse < perfect if metric.better == "higher" else worse > perfect


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
def test_sums_are_float64_of_the_stated_size_and_nothing_counted_is_nan(metric: Metric) -> None:
    sums = metric.sums(EvalBatch(noise(0, 2, 3, 12, 12), noise(1, 2, 3, 12, 12), noise(2, 2, 12, 12)))
    assert sums.dtype == torch.float64
    assert sums.shape == (metric.size,)
    assert sums.isfinite().all()
    assert math.isnan(metric.score(torch.zeros(metric.size, dtype=torch.float64)))


@settings(max_examples=15)
@given(st.integers(0, 2**32), st.lists(st.integers(0, 4), min_size=1, max_size=5))
def test_uneven_batches_give_the_same_sums(seed: int, sizes: list[int]) -> None:
    target = noise(seed, sum(sizes), 3, 13, 17)
    target[1::3] = luma(target[1::3])  # some without colour
    prediction = near(target, seed)
    objects = noise(seed, sum(sizes), 13, 17) % 3
    whole, parts = Scorer(ALL), Scorer(ALL)
    whole.update(EvalBatch(prediction, target, objects))
    for batch in zip(*(torch.split(part, sizes) for part in (prediction, target, objects)), strict=True):
        parts.update(EvalBatch(*batch))
    torch.testing.assert_close(parts.sums, whole.sums, rtol=1e-9, atol=1e-12)


def test_sums_of_processes_add_up_and_an_idle_process_brings_zeros() -> None:
    target = noise(0, 5, 3, 12, 12)
    prediction = near(target, 1)
    whole, one, two, idle = (Scorer(METRICS) for _ in range(4))
    whole.update(EvalBatch(prediction, target))
    one.update(EvalBatch(prediction[:2], target[:2]))
    two.update(EvalBatch(prediction[2:], target[2:]))
    scores = whole.scores(one.sums + two.sums + idle.sums)
    assert scores == pytest.approx(whole.scores(whole.sums), rel=1e-9, nan_ok=True)
    assert [*scores] == [metric.name for metric in METRICS]
    assert all(math.isnan(value) for value in idle.scores(idle.sums).values())


def test_the_number_of_threads_does_not_change_the_last_bit_of_a_large_image() -> None:
    before, found = torch.get_num_threads(), []
    target = noise(0, 1, 3, 250, 400)
    try:
        for threads in (1, 2, 3, 4):
            torch.set_num_threads(threads)
            scorer = Scorer(METRICS)
            scorer.update(EvalBatch(noise(1, *target.shape), target))
            found.append(scorer.sums)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(sums, found[0]) for sums in found)


def test_images_without_colour_are_not_counted() -> None:
    target = torch.cat([noise(0, 2, 3, 12, 12), luma(noise(1, 1, 3, 12, 12)).expand(1, 3, 12, 12)])
    prediction = noise(2, 3, 3, 12, 12)
    objects = torch.ones(3, 12, 12, dtype=torch.uint8)
    every, colored = Scorer(ALL), Scorer(ALL)
    every.update(EvalBatch(prediction, target, objects))
    colored.update(EvalBatch(prediction[:2], target[:2], objects[:2]))
    assert torch.equal(every.sums, colored.sums)


def test_sums_cannot_be_changed_from_outside() -> None:
    scorer = Scorer([MAE])
    scorer.sums.add_(1)
    assert scorer.sums.tolist() == [0, 0]


def test_pictures_that_are_no_8_bit_pairs_are_refused() -> None:
    image = noise(0, 1, 3, 12, 12)
    with pytest.raises(ValueError, match="uint8"):
        EvalBatch(image / 255, image)
    with pytest.raises(ValueError, match="shape"):
        EvalBatch(image, image[:, :, :6])


# --- errors in RGB


def test_mae_by_hand() -> None:
    """One value of 3 * 144 is off by 255; the other image is off by 51 (20 %) everywhere."""
    target = torch.cat([plain(0, 0, 0), plain(51, 102, 153)])
    prediction = target.clone()
    prediction[0, 1, 5, 5] = 255
    prediction[1] += 51
    assert score(MAE, prediction, target) == pytest.approx((100 / 432 + 20) / 2, rel=1e-12)


def test_both_psnr_averages_by_hand() -> None:
    """Errors of 1 and 10 levels everywhere: 48.13 dB and 28.13 dB; mean squared error of the set (1 + 100) / 2."""
    target = torch.cat([plain(100, 100, 100), plain(100, 100, 100)])
    prediction = torch.cat([plain(101, 99, 101), plain(90, 110, 90)])
    assert score(PSNR, prediction, target) == pytest.approx((48.1308036 + 28.1308036) / 2, abs=1e-6)
    assert score(PSNR_SET, prediction, target) == pytest.approx(10 * math.log10(255**2 / 50.5), rel=1e-12)


def test_an_exact_image_counts_100_db() -> None:
    target = torch.cat([plain(100, 100, 100), plain(100, 100, 100)])
    prediction = torch.cat([plain(100, 100, 100), plain(101, 101, 101)])
    assert score(PSNR, prediction, target) == pytest.approx((100 + 48.1308036) / 2, abs=1e-6)


@pytest.mark.parametrize("shape", [(11, 11), (16, 16), (13, 20)])
def test_ssim_agrees_with_scikit_image(shape: tuple[int, int]) -> None:
    metrics = pytest.importorskip("skimage.metrics")
    target = noise(0, 4, 3, *shape)
    target[2] = 128  # flat: variance 0
    prediction = near(target, 1)
    expected = [
        metrics.structural_similarity(
            *(image.numpy() / 255 for image in pair),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1.0,
            channel_axis=0,
        )
        for pair in zip(prediction, target, strict=True)
    ]
    assert score(SSIM, prediction, target) == pytest.approx(np.mean(expected), abs=1e-7)


def test_ssim_does_not_count_images_smaller_than_its_window() -> None:
    small = noise(0, 2, 3, 10, 32)
    assert SSIM.sums(EvalBatch(small, small)).tolist() == [0, 0]


# --- errors in Lab


@pytest.mark.parametrize(
    ("change", "right2", "right5"),
    [
        ((0, 0, 0), True, True),
        ((2, 4, -4), True, True),
        ((3, 0, 0), False, True),
        ((0, 5, 0), False, True),
        ((5, -11, 11), False, True),
        ((6, 0, 0), False, False),
        ((0, 0, 12), False, False),
    ],
)
def test_accuracy_at_its_limits(change: tuple[int, int, int], right2: bool, right5: bool) -> None:
    """Colours in the middle of a rounding interval, so that 8 bits do not push them over its edge."""
    target, prediction = of_lab(60, 10, 10), of_lab(60 + change[0], 10 + change[1], 10 + change[2])
    rounded = [rgb_to_lab(image)[0, :, 0, 0].round() for image in (target, prediction)]
    assert (rounded[1] - rounded[0]).tolist() == [*change]
    assert score(ACCURACY2, prediction, target) == 100 * right2
    assert score(ACCURACY5, prediction, target) == 100 * right5


def test_accuracy_is_the_share_of_right_pixels() -> None:
    target = of_lab(60, 10, 10, size=4)
    prediction = target.clone()
    prediction[:, :, 0, :3] = of_lab(60, 40, 10, size=1)[:, :, 0]
    assert score(ACCURACY5, prediction, target) == 100 * 13 / 16


# Sharma, Wu, Dalal 2005, table 1.
SHARMA = """
50.0000 2.6772 -79.7751 50.0000 0.0000 -82.7485 2.0425
50.0000 3.1571 -77.2803 50.0000 0.0000 -82.7485 2.8615
50.0000 2.8361 -74.0200 50.0000 0.0000 -82.7485 3.4412
50.0000 -1.3802 -84.2814 50.0000 0.0000 -82.7485 1.0000
50.0000 -1.1848 -84.8006 50.0000 0.0000 -82.7485 1.0000
50.0000 -0.9009 -85.5211 50.0000 0.0000 -82.7485 1.0000
50.0000 0.0000 0.0000 50.0000 -1.0000 2.0000 2.3669
50.0000 -1.0000 2.0000 50.0000 0.0000 0.0000 2.3669
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0009 7.1792
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0010 7.1792
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0011 7.2195
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0012 7.2195
50.0000 -0.0010 2.4900 50.0000 0.0009 -2.4900 4.8045
50.0000 -0.0010 2.4900 50.0000 0.0010 -2.4900 4.8045
50.0000 -0.0010 2.4900 50.0000 0.0011 -2.4900 4.7461
50.0000 2.5000 0.0000 50.0000 0.0000 -2.5000 4.3065
50.0000 2.5000 0.0000 73.0000 25.0000 -18.0000 27.1492
50.0000 2.5000 0.0000 61.0000 -5.0000 29.0000 22.8977
50.0000 2.5000 0.0000 56.0000 -27.0000 -3.0000 31.9030
50.0000 2.5000 0.0000 58.0000 24.0000 15.0000 19.4535
50.0000 2.5000 0.0000 50.0000 3.1736 0.5854 1.0000
50.0000 2.5000 0.0000 50.0000 3.2972 0.0000 1.0000
50.0000 2.5000 0.0000 50.0000 1.8634 0.5757 1.0000
50.0000 2.5000 0.0000 50.0000 3.2592 0.3350 1.0000
60.2574 -34.0099 36.2677 60.4626 -34.1751 39.4387 1.2644
63.0109 -31.0961 -5.8663 62.8187 -29.7946 -4.0864 1.2630
61.2901 3.7196 -5.3901 61.4292 2.2480 -4.9620 1.8731
35.0831 -44.1164 3.7933 35.0232 -40.0716 1.5901 1.8645
22.7233 20.0904 -46.6940 23.0331 14.9730 -42.5619 2.0373
36.4612 47.8580 18.3852 36.2715 50.5065 21.2231 1.4146
90.8027 -2.0831 1.4410 91.1528 -1.6435 0.0447 1.4441
90.9257 -0.5406 -0.9208 88.6381 -0.8985 -0.7239 1.5381
6.7747 -0.2908 -2.4247 5.8714 -0.0985 -2.2286 0.6377
2.0776 0.0795 -1.1350 0.9033 -0.0636 -0.5514 0.9082
"""


def test_ciede2000_of_the_published_pairs() -> None:
    rows = torch.tensor([[float(x) for x in row.split()] for row in SHARMA.strip().splitlines()], dtype=torch.float64)
    one, two = rows[:, :3].T.unsqueeze(1), rows[:, 3:6].T.unsqueeze(1)
    torch.testing.assert_close(ciede2000(one, two)[0], rows[:, 6], atol=5.1e-5, rtol=0)


def test_ciede2000_agrees_with_scikit_image_and_is_symmetric() -> None:
    skimage_color = pytest.importorskip("skimage.color")
    one, two = (srgb_to_lab(noise(seed, 3, 100, 100).double() / 255) for seed in (0, 1))
    expected = skimage_color.deltaE_ciede2000(one.numpy(), two.numpy(), channel_axis=0)
    np.testing.assert_allclose(ciede2000(one, two).numpy(), expected, atol=1e-9)
    torch.testing.assert_close(ciede2000(two, one), ciede2000(one, two), atol=1e-9, rtol=0)


def test_ciede2000_is_the_mean_over_pixels() -> None:
    target = of_lab(60, 10, 10, size=4)
    prediction = target.clone()
    prediction[:, :, 0, :] = of_lab(60, 40, 10, size=1)[:, :, 0]
    whole = score(CIEDE2000, of_lab(60, 40, 10, size=4), target)
    assert score(CIEDE2000, prediction, target) == pytest.approx(whole / 4)


# --- colour of the whole


def test_colorfulness_by_hand() -> None:
    """Half red, half blue: rg is 255 and 0, yb is 127.5 and -255."""
    image = plain(255, 0, 0)
    image[:, :, :6] = plain(0, 0, 255)[:, :, :6]
    expected = math.hypot(127.5, 191.25) + 0.3 * math.hypot(127.5, -63.75)
    assert colorfulness(image).item() == pytest.approx(expected, rel=1e-12)
    assert score(COLORFULNESS_GAP, plain(9, 9, 9), image) == pytest.approx(expected, rel=1e-12)


@settings(max_examples=20)
@given(st.integers(0, 2**32))
def test_colorfulness_is_the_published_formula_and_zero_for_grey(seed: int) -> None:
    image = noise(seed, 1, 3, 12, 15)
    red, green, blue = image[0].numpy().astype(float)
    rg, yb = red - green, (red + green) / 2 - blue
    expected = np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean())
    assert colorfulness(image).item() == pytest.approx(expected, rel=1e-12)
    assert colorfulness(grey(image)).item() == 0


def test_colorfulness_gap_does_not_let_images_make_up_for_each_other() -> None:
    images = torch.cat([noise(0, 1, 3, 12, 12), plain(128, 128, 128)])
    swapped = images.flip(0)
    assert score(COLORFULNESS, images, swapped) == pytest.approx(score(COLORFULNESS, swapped, images))
    assert score(COLORFULNESS_GAP, images, swapped) == pytest.approx(colorfulness(images)[0].item())


@settings(max_examples=20)
@given(st.integers(0, 2**32))
def test_unsigned_colorfulness_is_that_of_the_magnitudes(seed: int) -> None:
    image = noise(seed, 1, 3, 12, 15)
    red, green, blue = image[0].numpy().astype(float)
    rg, yb = abs(red - green), abs((red + green) / 2 - blue)
    expected = np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean())
    assert unsigned_colorfulness(image).item() == pytest.approx(expected, rel=1e-12)
    assert unsigned_colorfulness(grey(image)).item() == 0


def test_unsigned_colorfulness_by_hand() -> None:
    """Half the pixels red, half green, of the same strength: |rg| is 100 everywhere, so it has no deviation.

    |yb| is 50: 0.3 * hypot(100, 50). Signed, rg deviates by 100 and has the mean 0: 100 + 0.3 * 50.
    """
    image = plain(100, 0, 0)
    image[:, :, :6] = plain(0, 100, 0)[:, :, :6]
    assert unsigned_colorfulness(image).item() == pytest.approx(0.3 * math.hypot(100, 50))
    assert colorfulness(image).item() == pytest.approx(100 + 0.3 * 50)


def test_difference_of_means_lets_images_make_up_for_each_other() -> None:
    """Means of 0.3 * hypot(rg, yb): one answer is as much too dull as the other is too vivid."""
    dull, vivid_image, target = plain(100, 100, 50), plain(100, 100, 0), torch.cat([plain(100, 100, 25)] * 2)
    answers = torch.cat([dull, vivid_image])
    assert score(CF, answers, target) == pytest.approx(0.3 * 75)
    assert score(DELTA_CF, answers, target) == pytest.approx(0, abs=1e-12)
    assert score(DELTA_CF, torch.cat([dull, dull]), target) == pytest.approx(0.3 * 25)
    assert score(COLORFULNESS_GAP, answers, target) == pytest.approx(0.3 * 25)


def test_histogram_by_hand() -> None:
    """The truth is half red, half blue; an answer that is red everywhere overlaps by one half."""
    red, blue = of_lab(50, 40, 0), of_lab(50, 0, -40)
    target = torch.cat([red, blue])
    assert score(HISTOGRAM, torch.cat([red, red]), target) == pytest.approx(0.5)
    assert score(HISTOGRAM, torch.cat([blue, red]), target) == pytest.approx(1)
    assert score(HISTOGRAM, of_lab(50, -40, 40), red) == 0


def test_histogram_has_all_greys_in_one_bin_and_room_for_every_colour() -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    assert (HISTOGRAM.sums(EvalBatch(levels, levels)) > 0).sum() == 2
    corners = torch.cartesian_prod(*[torch.tensor([0, 255], dtype=torch.uint8)] * 3).T.reshape(1, 3, 2, 4)
    assert HISTOGRAM.sums(EvalBatch(corners, corners)).sum() == 16


# --- ambiguous objects


def scene(*answers: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """An image with a column 3 pixels wide, an object, for each answer (3 at most), on a vivid ground that is none."""
    image = of_lab(50, *COLORS[0])
    objects = torch.zeros(1, 12, 12, dtype=torch.uint8)
    for number, (a, b) in enumerate(answers, start=1):
        columns = slice(3 * number, 3 * number + 3)
        image[:, :, :, columns] = of_lab(50, a, b)[:, :, :, columns]
        objects[:, :, columns] = number
    return image, objects


@pytest.mark.parametrize("color", COLORS)
def test_each_of_the_colours_is_vivid(color: tuple[float, float]) -> None:
    image, objects = scene(color)
    assert score(VIVID, image, noise(0, *image.shape), objects) == 100


@pytest.mark.parametrize("average", [(0.0, 0.0), (-25.0, 0.0)], ids=["mean and grey", "median"])
def test_averages_are_not_vivid(average: tuple[float, float]) -> None:
    image, objects = scene(average)
    assert score(VIVID, image, noise(0, *image.shape), objects) == 0


def test_mean_is_not_vivid_when_it_is_not_grey() -> None:
    image, objects = scene((40.0, 20.0))
    assert score(vivid(((40.0, -20.0), (40.0, 60.0))), image, image, objects) == 0
    assert score(vivid(((40.0, 20.0), (40.0, 60.0))), image, image, objects) == 100


def test_vivid_counts_objects_over_images_by_their_mean_colour() -> None:
    """Objects 1 and 2 of one image and object 1 of another; half an object in each of two colours is an average."""
    first, objects = scene(COLORS[1], (0.0, 0.0))
    second = first.flip(2).clone()
    second[:, :, :6, 3:6] = of_lab(50, *COLORS[2])[:, :, :6, 3:6]
    eval_batch = EvalBatch(torch.cat([first, second]), torch.cat([first, second]), torch.cat([objects, objects % 2]))
    assert VIVID.sums(eval_batch).tolist() == [1, 3]
    assert VIVID.score(VIVID.sums(eval_batch)) == pytest.approx(100 / 3)


# --- several answers to an image


def several(*answers: tuple[Tensor, Tensor]) -> EvalBatch:
    """One image's answers, each with the same objects."""
    images = torch.cat([image for image, _ in answers])
    return EvalBatch(images[:1], images[:1], answers[0][1], images.unsqueeze(0))


def test_rarest_is_a_third_when_all_colours_come_equally_often() -> None:
    rose, azure, green = COLORS
    eval_batch = several(scene(rose, azure), scene(azure, green), scene(green, rose))
    assert RAREST.sums(eval_batch).tolist() == [2, 2, 2]
    assert RAREST.score(RAREST.sums(eval_batch)) == pytest.approx(100 / 3)
    assert VIVID.sums(eval_batch).tolist() == [6, 6]


def test_rarest_is_zero_when_the_mode_collapsed() -> None:
    eval_batch = several(*[scene(COLORS[0], COLORS[0])] * 4)
    assert RAREST.score(RAREST.sums(eval_batch)) == 0
    assert DIVERSITY.score(DIVERSITY.sums(eval_batch)) == 0


def test_rarest_is_a_share_of_the_vivid_and_vivid_one_of_all_answers() -> None:
    rose, azure, green = COLORS
    eval_batch = several(scene(rose, rose), scene(azure, (0.0, 0.0)), scene(azure, green), scene(rose, (0.0, 0.0)))
    assert RAREST.sums(eval_batch).tolist() == [3, 2, 1]
    assert RAREST.score(RAREST.sums(eval_batch)) == pytest.approx(100 / 6)
    assert VIVID.score(VIVID.sums(eval_batch)) == pytest.approx(75)


def test_diversity_is_the_mean_over_pairs() -> None:
    """Three answers, two of which are the same: two pairs of three differ."""
    one, other = of_lab(50, *COLORS[0]), of_lab(50, *COLORS[1])
    apart = score(CIEDE2000, one, other)
    found = DIVERSITY.sums(EvalBatch(one, one, None, torch.stack([one, other, one], dim=1)))
    assert DIVERSITY.score(found) == pytest.approx(apart * 2 / 3)


def test_one_answer_has_no_rarest_colour_and_no_diversity() -> None:
    image, objects = scene(*COLORS)
    assert math.isnan(score(RAREST, image, image, objects))
    assert math.isnan(score(DIVERSITY, image, image, objects))


def test_answers_to_an_image_without_colour_are_not_counted() -> None:
    image, objects = scene(COLORS[0])
    eval_batch = several(*[(image, objects)] * 2)
    grey_target = EvalBatch(eval_batch.prediction, luma(image).expand_as(image), objects, eval_batch.variants)
    for metric in (RAREST, DIVERSITY, VIVID):
        scorer = Scorer([metric])
        scorer.update(grey_target)
        assert not scorer.sums.any()


# --- nothing to look at


def test_vivid_without_marked_objects_counts_nothing() -> None:
    image, objects = scene(COLORS[0])
    assert math.isnan(score(VIVID, image, image))
    assert math.isnan(score(VIVID, image, image, objects * 0))


# --- references


@settings(max_examples=10)
@given(st.integers(0, 2**32))
def test_baselines_and_oracle_are_what_they_say(seed: int) -> None:
    target = near(of_lab(50, 10, 10).expand(2, 3, 12, 12), seed)  # all answers inside the gamut
    grey_lightness = rgb_to_lab(grey(target))[:, 0]
    assert torch.equal(grey(target), luma(target).expand_as(target))
    answers = {
        "constant": (constant(target, (5.0, -7.0)), torch.tensor([5.0, -7.0]).view(2, 1, 1)),
        "oracle": (oracle(target), rgb_to_lab(target)[:, 1:]),
    }
    for answer, ab in answers.values():
        assert answer.dtype == torch.uint8
        lab = rgb_to_lab(answer)
        assert (lab[:, 0] - grey_lightness).abs().max() < 0.5  # 8 bits
        assert (lab[:, 1:] - ab).abs().max() < 1.5


def test_constant_of_no_colour_is_grey() -> None:
    target = noise(0, 2, 3, 12, 12)
    assert torch.equal(constant(target, (0.0, 0.0)), grey(target))


def test_references_are_ordered_from_baseline_to_target() -> None:
    target = near(of_lab(50, 20, 10).expand(2, 3, 12, 12), 0)
    answers = {reference.name: reference.answer(target, (20.0, 10.0)) for reference in REFERENCES}
    assert [*answers] == ["grey", "constant", "oracle", "target"]
    assert [each.role for each in REFERENCES] == ["baseline", "baseline", "oracle", "target"]
    scores = [score(CIEDE2000, answer, target) for answer in answers.values()]
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] == 0


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.integers(1, 4))
def test_median_is_that_of_all_pixels_whatever_the_order(seed: int, pixels: int) -> None:
    images = [noise(seed + i, 1, 3, 1, pixels) for i in range(3)]
    expected = rgb_to_lab(torch.cat(images, dim=3))[0, 1:].flatten(1).median(dim=1).values
    assert median_ab(images) == pytest.approx(expected.tolist(), abs=0.005 + 1e-9)
    assert median_ab(images[::-1]) == median_ab([torch.cat(images, dim=3)]) == median_ab(images)


def test_median_of_extreme_colours_and_of_nothing() -> None:
    corners = torch.cartesian_prod(*[torch.tensor([0, 255], dtype=torch.uint8)] * 3).T.reshape(1, 3, 2, 4)
    assert all(abs(x) < 110 for x in median_ab([corners]))
    with pytest.raises(ValueError, match="no images"):
        median_ab([])


# --- table


def test_table_is_aligned_and_names_the_better_way() -> None:
    answers = {
        "grey (baseline)": {"mae": 4.8512, "ssim": 0.95512, "colorfulness": 0.0},
        "ours": {"mae": 12.0, "ssim": math.nan, "colorfulness": 29.9},
    }
    assert table(answers, [MAE, SSIM, COLORFULNESS, PSNR]).splitlines() == [
        "                        grey (baseline)   ours",
        "MAE % ↓                            4.85  12.00",
        "SSIM ↑                            0.955      -",
        "Colourfulness → target             0.00  29.90",
        "PSNR dB ↑                             -      -",
    ]


def test_mean_and_best_of_several_predictions() -> None:
    """Two images: the predictions of one are at distances 0 and d of its target, of the other both at d."""
    one, other = of_lab(50, *COLORS[0]), of_lab(50, *COLORS[1])
    apart = score(CIEDE2000, one, other)
    prediction, target = torch.cat([other, other]), torch.cat([one, one])
    variants = torch.stack([prediction, torch.cat([one, other])], dim=1)
    eval_batch = EvalBatch(prediction, target, None, variants)
    assert CIEDE2000_MEAN.score(CIEDE2000_MEAN.sums(eval_batch)) == pytest.approx(apart * 3 / 4)
    assert CIEDE2000_BEST.score(CIEDE2000_BEST.sums(eval_batch)) == pytest.approx(apart / 2)
