"""Images larger than the quickstart's, from sources that have them at any size."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import alone_on_the_cpu, tiny
from PIL import Image
from runs import run

import colordist
from colordist.errors import UserError

QUICK: dict[str, Any] = {"train__steps": 1, "train__global_batch_size": 2, "model__depth": 3, "discriminator__depth": 3}


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with alone_on_the_cpu(monkeypatch):
        yield


def photos(root: Path) -> Path:
    """Two large ones of odd shape and a small one, which is scaled up."""
    for part, sizes in ("train", [(300, 270), (40, 50)]), ("test", [(260, 400)]):
        (root / part).mkdir(parents=True)
        for number, size in enumerate(sizes):
            noise = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(noise).save(root / part / f"{number}.png")
    return root


@pytest.mark.parametrize(("source", "size"), [("synthetic", 128), ("folder", 256)])
def test_a_run(source: str, size: int, tmp_path: Path) -> None:
    root = photos(tmp_path / "photos")
    own = {"data__root": str(root)} if source == "folder" else {"data__train_images": 2, "data__test_images": 2}
    folder = run(tmp_path / "run", **QUICK, **own, data__source=source, data__image_size=size)
    count = 2 if source == "synthetic" else 1
    assert Image.open(folder.samples / "step-000001.png").size == (count * size, 3 * size)
    assert colordist.load(folder.path)(Image.open(root / "train" / "0.png")).size == (270, 300)


def test_a_size_that_can_not_be_halved_is_one_line() -> None:
    with pytest.raises(UserError, match=r"^model\.depth is 4, but data\.image_size 200 .*: try model\.depth 3$"):
        tiny(data__image_size=200, model__depth=4)
