"""A folder of small images."""

from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 16


def images(root: Path, train: int = 26, test: int = 7) -> Path:
    """Smooth noise in two classes: JPEGs, and a few other formats, which the names don't tell."""
    for part, count in ("train", train), ("test", test):
        for number in range(count):
            pixels = np.random.default_rng((count, number)).integers(0, 256, (4, 4, 3), dtype=np.uint8)
            name = f"{number:03d}" + {5: ".png", 6: ".bmp"}.get(number, ".jpg")
            path = root / part / ("cat" if number % 3 else "dog") / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).resize((20, SIDE), Image.Resampling.BICUBIC).save(path)
    return root
