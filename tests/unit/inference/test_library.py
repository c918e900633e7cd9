"""colordist.load within a program of others: nothing outside changes, threads don't mind each other, memory is kept."""

import gc
import json
import os
import random
import signal
import subprocess
import sys
import tracemalloc
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import config_with
from photos import DEPTH, SIZE, noise, snapshot_in
from PIL import Image

import colordist
from colordist.models.factory import ModelFactory
from colordist.run import snapshot
from colordist.tasks.flow import FlowTask

THREADS = 4


def flow_in(folder: Path) -> Path:
    settings = config_with({"task.name": "flow", "task.solver_steps": 2, "model.width": 4, "model.depth": DEPTH})
    task = FlowTask(settings.task, settings.model)
    network = task.build_sampled(ModelFactory(0, settings.model))["generator"].module
    snapshot.write(folder, task, {"generator": network}, {"step": 1, "image_size": SIZE})
    return folder


def around() -> dict[str, Any]:
    """What a library shouldn't change, as values that can be compared, also between processes."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    return {
        "environment": {key: value for key, value in os.environ.items() if key != "TORCHINDUCTOR_CACHE_DIR"},  # torch's
        "warnings": [*map(str, warnings.filters)],
        "signals": [str(signal.getsignal(number)) for number in signal.valid_signals()],
        "threads": [torch.get_num_threads(), torch.get_num_interop_threads()],
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "precision": [torch.get_float32_matmul_precision(), matmul.allow_tf32, cudnn.allow_tf32],
        "cudnn": [cudnn.enabled, cudnn.benchmark, cudnn.deterministic],
        "defaults": [str(torch.get_default_dtype()), str(torch.get_default_device())],
        "gradients": [torch.is_grad_enabled(), torch.is_inference_mode_enabled()],
        "random": [str(random.getstate()), str(np.random.get_state()), torch.get_rng_state().tolist()],
        "numpy": str(np.geterr()),
        "folder": os.getcwd(),
        "pixels": Image.MAX_IMAGE_PIXELS,
        "hooks": [str(sys.excepthook), sys.getrecursionlimit()],
    }


SCRIPT = """
import json, sys
sys.path.insert(0, sys.argv[1])
import random, numpy, torch  # before the state is taken, as they set some of it
from PIL import Image
import timm, torchvision
from around import around
states = [around()]
import colordist
states.append(around())
colorizer = colordist.load(sys.argv[2])
states.append(around())
colorizer(Image.new("RGB", (40, 30)))
states.append(around())
print(json.dumps(states))
"""


@pytest.mark.parametrize("model", ["photos-small", "flow"])
def test_nothing_around_changes(model: str, tmp_path: Path) -> None:
    source = Path(__file__).read_text()
    imports = "import os, random, signal, sys, warnings\nimport numpy as np\nimport torch\nfrom PIL import Image\n"
    body = source[source.index("def around()") : source.index("SCRIPT = ")].replace("-> dict[str, Any]", "")
    (tmp_path / "around.py").write_text(imports + body)
    where = model if model == "photos-small" else str(flow_in(tmp_path / model))
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), where]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    before, *later = json.loads(done.stdout)
    assert later == [before] * 3


@cache
def images() -> list[Image.Image]:
    return [noise(20 + 7 * number, 31, seed=number) for number in range(6)]


@pytest.mark.parametrize("kind", ["deterministic", "latent codes", "flow"])
def test_threads_get_equal_results(kind: str, tmp_path: Path) -> None:
    step = (
        flow_in(tmp_path / "a")
        if kind == "flow"
        else snapshot_in(tmp_path / "a", noise=3 if kind != "deterministic" else 0)
    )
    one = colordist.load(step)
    expected = [one(image).tobytes() for image in images()]
    before = torch.get_rng_state()
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in range(5):
            assert [each.tobytes() for each in pool.map(one, images())] == expected
        many = list(pool.map(colordist.load, [step] * (2 * THREADS)))
    assert torch.equal(torch.get_rng_state(), before)
    for each in many:
        assert [each(image).tobytes() for image in images()] == expected


def test_threads_may_share_an_image_that_nobody_has_decoded(tmp_path: Path) -> None:
    one = colordist.load(snapshot_in(tmp_path / "a"))
    noise(300, 200).save(tmp_path / "a.png")
    expected = one(Image.open(tmp_path / "a.png")).tobytes()
    for _ in range(5):
        shared = Image.open(tmp_path / "a.png")
        with ThreadPoolExecutor(THREADS) as pool:
            assert {each.tobytes() for each in pool.map(one, [shared] * THREADS)} == {expected}


def test_calls_keep_no_memory(tmp_path: Path) -> None:
    one, image = colordist.load(snapshot_in(tmp_path / "a")), noise(24, 16)
    for _ in range(50):
        one(image)
    tracemalloc.start()
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(300):
        one(image)
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert after - before < 300 * 24 * 16  # bytes: less than the smallest part of an image a call


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_default_dtype_of_others_is_no_matter(dtype: torch.dtype, tmp_path: Path) -> None:
    step = flow_in(tmp_path / "a")
    expected = colordist.load(step)(images()[0]).tobytes()
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        assert colordist.load(step)(images()[0]).tobytes() == expected
    finally:
        torch.set_default_dtype(before)


# --- arguments


class Number:
    """An integer of another library."""

    def __index__(self) -> int:
        return SIZE


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"model": None}, "model is a NoneType"),
        ({"model": 5}, "model is a int"),
        ({"model": "no\0thing"}, "there is no folder"),
        ({"resolution": 10**6}, "resolution is 1000000, but must be at most 16384"),
        ({"resolution": 0}, "resolution is 0, but must be at least 1"),
        ({"resolution": -3}, "resolution is -3, but must be at least 1"),
        ({"resolution": True}, "resolution is True, but must be a whole number"),
        ({"resolution": "256"}, "resolution is '256', but must be a whole number"),
        ({"resolution": 256.0}, "resolution is 256.0, but must be a whole number"),
        ({"upsample": "cubic"}, "upsample is 'cubic', but must be one of guided, bilinear"),
        ({"upsample": None}, "upsample is None, but"),
        ({"upsample": ["guided"]}, r"upsample is \['guided'\], but"),
        ({"solver_steps": 0}, "solver_steps is 0, but must be at least 1"),
        ({"solver_steps": 10**30}, "solver_steps is 10+, but must be at most"),
        ({"solver_steps": 1.5}, "solver_steps is 1.5, but must be a whole number"),
    ],
)
def test_load_names_the_argument(arguments: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(colordist.UserError, match=f"^{told}") as refusal:
        colordist.load(**{"model": flow_in(tmp_path / "a")} | arguments)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"image": np.zeros((8, 8, 3), np.uint8)}, r"image is a ndarray.*Image\.fromarray"),
        ({"image": torch.zeros(3, 8, 8)}, r"image is a Tensor"),
        ({"image": "photo.jpg"}, r"image is a str.*Image\.open"),
        ({"image": Path("photo.jpg")}, "image is a PosixPath"),
        ({"image": None}, "image is a NoneType"),
        ({"image": Image.new("RGB", (0, 5))}, "image can't be coloured: without pixels"),
        ({"image": Image.new("RGB", (5, 0))}, "image can't be coloured: without pixels"),
        ({"variant": 0.5}, "variant is 0.5, but must be a whole number"),
        ({"variant": True}, "variant is True, but must be a whole number"),
        ({"variant": None}, "variant is None, but must be a whole number"),
        ({"variant": 10**30}, "variant is 10+, but must be at most"),
        ({"variant": -1}, "variant is -1, but must be at least 0"),
        ({"variant": 1}, "variant is 1, but this network has 1"),
        ({"seed": "x"}, "seed is 'x', but must be a whole number"),
        ({"seed": 10**5000}, "seed has 16610 bits, but must be at most"),
    ],
)
def test_a_call_names_the_argument(arguments: dict[str, Any], told: str, tmp_path: Path) -> None:
    one = colordist.load(snapshot_in(tmp_path / "a"))
    with pytest.raises(colordist.UserError, match=f"^{told}") as refusal:
        one(**{"image": noise(9, 9)} | arguments)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("images", [noise(9, 9), None, 5, "a.jpg"])
def test_colorize_takes_a_list(images: Any, tmp_path: Path) -> None:  # noqa: ANN401
    one = colordist.load(snapshot_in(tmp_path / "a"))
    with pytest.raises(colordist.UserError, match=f"^images is a {type(images).__name__}: give a list"):
        one.colorize(images)
    with pytest.raises(colordist.UserError, match=r"^batch_size is 0, but must be at least 1"):
        one.colorize([noise(9, 9)], batch_size=0)
    assert one.colorize([]) == []


def test_integers_of_other_libraries(tmp_path: Path) -> None:
    step = flow_in(tmp_path / "a")
    one, other = colordist.load(step, SIZE), colordist.load(step, Number())  # type: ignore[arg-type]
    image = noise(9, 9)
    assert one(image, 1, 2).tobytes() == other(image, np.int64(1), np.int64(2)).tobytes()  # type: ignore[arg-type]


def test_a_damaged_image(tmp_path: Path) -> None:
    noise(90, 90).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:2000])
    one = colordist.load(snapshot_in(tmp_path / "a"))
    with pytest.raises(colordist.UserError, match=r"^image can't be coloured: truncated or damaged$"):
        one(Image.open(tmp_path / "a.png"))


def test_what_cannot_fit_is_refused_before_it_is_allocated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = colordist.load(snapshot_in(tmp_path / "a"), 64)
    monkeypatch.setattr("colordist.files.memory.device_memory", lambda device: 100_000)
    with pytest.raises(colordist.UserError, match=r"^2 photos of 64x64 take more than .*: try a smaller batch_size$"):
        one.colorize([noise(70, 70)] * 2)
    assert one(noise(70, 70)).size == (70, 70)
    monkeypatch.setattr("colordist.files.memory.device_memory", lambda device: 50_000)
    with pytest.raises(colordist.UserError, match=r"^resolution is 64: its features .*: try a resolution below 64$"):
        one(noise(70, 70))
