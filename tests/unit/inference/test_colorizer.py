"""Colouring one image of any size, shape, mode and origin."""

import io
import tempfile
from functools import cache
from pathlib import Path
from typing import Literal
from unittest import mock

import numpy as np
import pytest
import torch
from helpers import config_with
from hypothesis import given, settings
from hypothesis import strategies as st
from image_corpus import profile
from numpy.typing import NDArray
from photos import DEPTH, SIZE, Space, noise, pixels, snapshot_in
from PIL import Image, ImageOps

import colordist
from colordist.color import ColorSpace, luma, to_8_bits
from colordist.data.decode import Undecodable, decode, decode_with_alpha
from colordist.errors import UserError
from colordist.inference import colorizer as module
from colordist.inference.colorizer import Colorizer, keep_luma, read_photo
from colordist.models.factory import ModelFactory
from colordist.run import snapshot
from colordist.run.snapshot import Snapshot
from colordist.tasks.autoencoder import AutoencoderSettings, AutoencoderTask
from colordist.tasks.flow import FlowTask

torch.set_num_threads(1)
spaces: list[Space] = ["lab", "rgb"]


@cache
def colorizer(space: Space = "lab", resolution: int = SIZE) -> Colorizer:
    with tempfile.TemporaryDirectory() as name:
        return colordist.load(snapshot_in(Path(name) / "step-1", space), resolution)


def grey(image: Image.Image) -> NDArray[np.int64]:
    rgb = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    return luma(rgb)[0].numpy().astype(np.int64)


MODES = [
    "1",
    "L",
    "P",
    "RGB",
    "RGBA",
    "CMYK",
    "YCbCr",
    "LAB",
    "HSV",
    "I",
    "F",
    "LA",
    "PA",
    "RGBX",
    "RGBa",
    "La",
    "I;16",
]
sides = st.one_of(st.integers(1, 40), st.integers(1, 300))


@given(width=sides, height=sides, mode=st.sampled_from(MODES), space=st.sampled_from(spaces), seed=st.integers(0, 99))
@settings(max_examples=150)
def test_size_alpha_and_luma_are_kept(width: int, height: int, mode: str, space: Space, seed: int) -> None:
    image = noise(width, height, mode, seed)
    picture = colorizer(space)(image)
    photo = read_photo(image)
    transparent = mode in ("RGBA", "LA", "PA", "RGBa", "La")
    assert picture.size == image.size
    assert picture.mode == ("RGBA" if transparent else "RGB")
    if transparent:
        expected = image.convert("LA" if mode == "La" else "RGBA").getchannel("A")
        np.testing.assert_array_equal(pixels(picture)[..., 3], pixels(expected))
    assert np.abs(grey(picture) - pixels(photo.grey)).max() <= 1  # even where the gamut ends


@pytest.mark.parametrize("space", spaces)
def test_there_is_color(space: Space) -> None:
    assert np.ptp(pixels(colorizer(space)(noise(200, 100))), axis=-1).mean() > 10


@given(seed=st.integers(0, 2**31))
def test_keep_luma(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    rgb, level = torch.rand(3, 8, 8, generator=random), torch.rand(1, 8, 8, generator=random)
    level[0, 0, 0], level[0, 0, 1] = 0, 1
    put_right = keep_luma(rgb, level)
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    torch.testing.assert_close((put_right * weights).sum(0, keepdim=True), level, atol=1e-5, rtol=0)
    assert put_right.min() > -1e-5
    assert put_right.max() < 1 + 1e-5
    before, after = rgb - (rgb * weights).sum(0), put_right - level
    assert (before * after).sum(0).min() > -1e-5  # same direction ...
    torch.testing.assert_close(torch.linalg.cross(before, after, dim=0), torch.zeros_like(rgb), atol=1e-5, rtol=0)
    fits = ((level + before).amin(0) >= 0) & ((level + before).amax(0) <= 1)
    torch.testing.assert_close(after[:, fits], before[:, fits])  # ... and as vivid as before where that fits


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (37, 53), (900, 7), (640, 480), (5, 2000)])
def test_strips_are_the_whole(size: tuple[int, int]) -> None:
    image = noise(*size, "RGBA")
    eval_batch = []
    for strip in (1, 1000, 1 << 30):
        with mock.patch.object(module, "_STRIP", strip):
            eval_batch.append(pixels(colorizer()(image)))
    for part in eval_batch[:2]:
        # A vectorised power may differ in its last bit with the length of the row, and so round to the next level.
        off = np.abs(part.astype(int) - eval_batch[2])
        assert off.max() <= 1
        assert np.count_nonzero(off) <= off.size // 1000


@pytest.mark.parametrize("space", spaces)
def test_at_the_trained_size_it_is_the_network_and_nothing_else(space: Space) -> None:
    image = noise(SIZE, SIZE)
    level, _ = ColorSpace(space).split(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None], torch.float32)
    answer = colorizer(space).networks["generator"](level)
    if space == "lab":
        expected = keep_luma(ColorSpace(space).join(level, answer), (level + 1) / 2)
        got = pixels(colorizer(space)(image)).transpose(2, 0, 1)
        np.testing.assert_allclose(got, to_8_bits(expected)[0].numpy(), atol=1)
    else:  # its a, b in another lightness: the direction from grey is about the same
        wanted = to_8_bits(ColorSpace(space).join(level, answer))[0].numpy().astype(int)
        got = pixels(colorizer(space)(image)).transpose(2, 0, 1)
        assert np.corrcoef((wanted - wanted.mean(0)).ravel(), (got - got.mean(0)).ravel())[0, 1] > 0.7


@pytest.mark.parametrize("space", spaces)
def test_batch_equals_single(space: Space) -> None:
    images = [noise(*size, seed=n) for n, size in enumerate([(40, 30), (60, 60), (80, 60), (40, 30), (20, 90), (1, 1)])]
    batched, alone = colorizer(space).colorize(images, batch_size=4), [colorizer(space)(image) for image in images]
    for one, other in zip(batched, alone, strict=True):
        assert np.abs(pixels(one) - pixels(other)).max() <= 1
    assert colorizer(space).colorize([]) == []


def test_one_batch_per_shape() -> None:
    seen: list[tuple[int, ...]] = []
    with (
        colorizer()
        .networks["generator"]
        .register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    ):
        colorizer().colorize([noise(*size) for size in [(64, 64), (64, 32), (200, 200), (300, 150), (64, 64)]])
    assert seen == [(3, 1, 16, 16), (2, 1, 16, 32)]


@given(width=st.integers(1, 20_000), height=st.integers(1, 20_000), resolution=st.sampled_from([8, 16, 50, 256]))
def test_input_size(width: int, height: int, resolution: int) -> None:
    size = colorizer(resolution=resolution).input_size((width, height))
    assert all(side % 2**DEPTH == 0 and side >= 2 ** (DEPTH + 1) for side in size)
    assert abs(min(size) - resolution) <= 2 ** (DEPTH - 1)
    aspect = min(max(width, height) / min(width, height), 8)
    assert abs(max(size) - resolution * aspect) <= 2 ** (DEPTH - 1)
    assert (size[0] - size[1]) * (width - height) >= 0


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_exif_orientation(orientation: int, mode: str) -> None:
    tags = Image.Exif()
    tags[0x0112] = orientation
    buffer = io.BytesIO()
    noise(60, 32, mode).save(buffer, "PNG", exif=tags)
    image = Image.open(buffer)
    upright = ImageOps.exif_transpose(Image.open(buffer))
    picture = colorizer()(image)
    np.testing.assert_array_equal(pixels(picture), pixels(colorizer()(upright)))
    assert picture.size == ((60, 32) if orientation < 5 else (32, 60))
    assert not picture.getexif()
    assert not picture.info


def test_colors_are_upscaled_in_place() -> None:
    """A network whose colours follow the grey: dark is red, light is green, nowhere swapped or shifted."""
    image = Image.new("L", (403, 97), 60)
    image.paste(190, (201, 0, 403, 97))

    class TwoColors(torch.nn.Module):
        def forward(self, level: torch.Tensor) -> torch.Tensor:
            return torch.cat([-level, torch.zeros_like(level)], dim=1)

    task = AutoencoderTask(AutoencoderSettings(), config_with({"model.depth": DEPTH}).model)
    paint = Colorizer(Snapshot(task, torch.nn.ModuleDict({"generator": TwoColors()}), {}, Path()), SIZE)
    picture = pixels(paint(image))
    assert (picture[:, :195, 0] > picture[:, :195, 1]).all()
    assert (picture[:, 207:, 0] < picture[:, 207:, 1]).all()
    np.testing.assert_array_equal(picture, picture[::-1])
    turned = pixels(paint(image.transpose(Image.Transpose.ROTATE_90)))
    np.testing.assert_array_equal(np.rot90(picture), turned)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_icc_profile(mode: str) -> None:
    image = noise(30, 20, mode)
    red, green, blue, *alpha = image.split()
    image.info["icc_profile"] = profile("Odd", swapped=True)
    assert (
        np.abs(pixels(read_photo(image).grey) - grey(Image.merge("RGB", (blue, green, red)))).mean() <= 3
    )  # gamma 2.2 is near sRGB
    picture = colorizer()(image)
    assert not picture.info
    assert not alpha or picture.getchannel("A") == alpha[0]


def test_deep_grey() -> None:
    ramp = Image.fromarray(np.arange(256 * 16, dtype=np.uint16).reshape(16, 256) * 16)
    assert np.abs(pixels(read_photo(ramp).grey) - pixels(ramp) / 257).max() <= 0.5
    with pytest.raises(UserError, match=r"image can.t be coloured: values of unknown range"):
        colorizer()(Image.new("I", (9, 9), -5))


def test_what_is_hidden_does_not_tint_what_shows() -> None:
    alpha = Image.new("L", (64, 64), 255)
    alpha.paste(0, (0, 0, 32, 64))
    shown, eval_batch = noise(64, 64), []
    for level in (0, 200):
        image = shown.copy()
        image.paste((level,) * 3, (0, 0, 32, 64))
        image.putalpha(alpha)
        eval_batch.append(pixels(colorizer()(image)))
    np.testing.assert_array_equal(eval_batch[0][:, 32:], eval_batch[1][:, 32:])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "CMYK"])
def test_decode_with_alpha_agrees_with_decode(mode: str, tmp_path: Path) -> None:
    path = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    noise(40, 20, mode).save(path)
    image, alpha = decode_with_alpha(path)
    assert (alpha is not None) == ("A" in mode)
    if alpha is not None:
        image = Image.composite(image, Image.new("RGB", image.size, "white"), alpha)
    assert np.abs(pixels(image) - pixels(decode(path))).max() <= 1


def test_decode_with_alpha_refuses_like_decode(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"garbage")
    Image.new("RGB", (4, 4)).save(tmp_path / "tiny.png")
    for name, reason in (("x.png", "not a readable image"), ("tiny.png", "smaller than 8 pixels")):
        with pytest.raises(Undecodable, match=reason):
            decode_with_alpha(tmp_path / name)


@pytest.mark.parametrize("name", ["unet", "autoencoder"])
def test_load(name: Literal["unet", "autoencoder"], tmp_path: Path) -> None:
    step = snapshot_in(tmp_path / "run" / "snapshots" / "step-000001", name=name)
    by_run, by_step = colordist.load(tmp_path / "run"), colordist.load(str(step))
    image = noise(30, 20)
    np.testing.assert_array_equal(pixels(by_run(image)), pixels(by_step(image)))
    assert by_run.resolution == SIZE
    assert colordist.load(step, 24).resolution == 24
    assert by_step.upsample == "guided"
    bilinear = colordist.load(step, upsample="bilinear")
    assert pixels(bilinear(image)).tolist() != pixels(by_step(image)).tolist()


def test_load_refuses(tmp_path: Path) -> None:
    step = snapshot_in(tmp_path / "step")
    (tmp_path / "empty").mkdir()
    for where, resolution, words in [
        (tmp_path / "nowhere", None, "no folder"),
        (tmp_path / "empty", None, "empty is neither a run nor a snapshot"),
        (step, 7, "try 8"),
    ]:
        with pytest.raises(UserError, match=words) as caught:
            colordist.load(where, resolution)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="upsample is 'bicubic', but must be one of guided, bilinear: try guided"):
        colordist.load(step, upsample="bicubic")
    text = (step / "model.json").read_text()
    (step / "model.json").write_text(text.replace('"image_size": 16', '"other": 1'))
    with pytest.raises(UserError, match="give a resolution"):
        colordist.load(step)
    assert colordist.load(step, 16).resolution == 16


def test_saturation_scales_the_chroma_and_keeps_the_luma() -> None:
    image, one = noise(60, 40), colorizer()
    chroma = [
        np.abs(np.diff(pixels(one.adjusted(saturation=factor)(image)))).mean() for factor in (0, 0.1, 0.2, 0.4, 3)
    ]
    assert chroma == sorted(chroma)
    assert chroma[0] < 0.1
    assert chroma[2] == pytest.approx(2 * chroma[1], rel=0.1)  # well inside of the gamut
    assert one.adjusted(saturation=1)(image).tobytes() == one(image).tobytes()
    assert np.abs(grey(one.adjusted(saturation=3)(image)) - grey(image)).max() <= 1


def test_adjusting_is_loading_with_other_settings(tmp_path: Path) -> None:
    step, image = snapshot_in(tmp_path / "step"), noise(60, 40)
    loaded, other = colordist.load(step), colordist.load(step, 24, "bilinear", saturation=0.5)
    adjusted = loaded.adjusted(24, "bilinear", 0.5)
    assert adjusted(image).tobytes() == other(image).tobytes()
    assert (loaded.resolution, loaded.upsample, loaded.saturation) == (SIZE, "guided", 1.0)
    assert adjusted.networks is loaded.networks
    for changes, words in (
        ({"resolution": 7}, "resolution is 7, but this network needs at least 8: try 8"),
        ({"upsample": "nearest"}, "upsample is 'nearest'"),
        ({"saturation": 4}, r"saturation is 4.0, but must lie in \[0.0, 3.0\]: try saturation 3.0"),
        ({"saturation": float("nan")}, "saturation is nan"),
        ({"saturation": "much"}, "saturation is 'much', but must be a number: try saturation 0.0"),
    ):
        with pytest.raises(UserError, match=words):
            loaded.adjusted(**changes)


# --- several answers


def test_variants_differ_and_each_comes_again(tmp_path: Path) -> None:
    noisy = colordist.load(snapshot_in(tmp_path / "step-1", noise=3))
    assert noisy.variants == 3
    photo, other = noise(20, 12), noise(31, 40, seed=1)
    variants = [noisy(photo, variant=number) for number in range(3)]
    assert len({picture.tobytes() for picture in variants}) == 3
    assert noisy(photo).tobytes() == variants[0].tobytes()
    batched = noisy.colorize([other, photo, photo], variant=2)
    assert np.abs(pixels(batched[1]) - pixels(variants[2])).max() <= 1  # rounded in another batch
    assert all(np.abs(grey(picture) - grey(photo)).max() <= 1 for picture in variants)
    with pytest.raises(UserError, match="variant is 3, but this network has 3, counted from 0: try variant 0"):
        noisy(photo, variant=3)


def test_a_network_without_noise_has_one_answer() -> None:
    assert colorizer()(noise(20, 12), variant=0).size == (20, 12)
    with pytest.raises(UserError, match="variant is 1, but this network has 1, counted from 0: try variant 0"):
        colorizer()(noise(20, 12), variant=1)


def test_a_flow_has_any_number_of_answers_that_follow_from_the_pixels(tmp_path: Path) -> None:
    settings = config_with({"task.name": "flow", "task.solver_steps": 2, "model.width": 4, "model.depth": DEPTH})
    task = FlowTask(settings.task, settings.model)
    network = task.build_sampled(ModelFactory(0, settings.model))["generator"].module
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    snapshot.write(tmp_path / "step-1", task, {"generator": network}, {"step": 1, "image_size": SIZE})
    flow = colordist.load(tmp_path / "step-1")
    assert flow.variants is None
    photo, other = noise(20, 12), noise(20, 12, seed=1)
    answers = [flow(photo), flow(photo, variant=1), flow(photo, variant=10**6), flow(photo, seed=1)]
    assert len({picture.tobytes() for picture in answers}) == 4
    batched = flow.colorize([other, photo], variant=1)
    assert np.abs(pixels(batched[1]) - pixels(answers[1])).max() <= 1  # rounded in another batch
    assert all(np.abs(grey(picture) - grey(photo)).max() <= 1 for picture in answers)
    with pytest.raises(UserError, match="variant is -1, but must be at least 0: try variant 0"):
        flow(photo, variant=-1)
