"""A folder of images of three classes that differ in colour alone."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from colordist.data.sources.ambiguous import GREYS, color_table


def coloured(seed: int, count: int) -> NDArray[np.uint8]:
    """Blotches, each in three colours with exactly the same grey: uint8 [3, count, 16, 16, 3]."""
    grey = np.random.default_rng(seed).integers(GREYS[0], GREYS[-1] + 1, (count, 4, 4)).repeat(4, 1).repeat(4, 2)
    return np.stack([color_table()[colour][grey] for colour in range(3)])


def image_folder(root: Path) -> Path:
    for seed, part, count in ((0, "train", 12), (1, "test", 4)):
        for name, images in zip(("rose", "azure", "green"), coloured(seed, count), strict=True):
            (root / part / name).mkdir(parents=True)
            for index, image in enumerate(images):
                Image.fromarray(image).save(root / part / name / f"{index}.png")
    return root
