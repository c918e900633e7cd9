"""Images of three classes that differ in colour alone, and the command line that trains a classifier on them."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from colordist.data.sources.ambiguous import GREYS, color_table


def coloured(seed: int, count: int) -> tuple[Tensor, Tensor]:
    """Blotches, each in three colours with exactly the same grey: only colour tells the class."""
    grey = np.random.default_rng(seed).integers(GREYS[0], GREYS[-1] + 1, (count, 4, 4)).repeat(4, 1).repeat(4, 2)
    images = torch.from_numpy(np.concatenate([color_table()[colour][grey] for colour in range(3)])).permute(0, 3, 1, 2)
    return images, torch.arange(3).repeat_interleave(count)


def image_folder(root: Path, classes: tuple[str, ...] = ("rose", "azure", "green")) -> Path:
    for seed, part, count in ((0, "train", 12), (1, "test", 4)):
        images, labels = coloured(seed, count)
        for index, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
            if label < len(classes):
                (root / part / classes[label]).mkdir(parents=True, exist_ok=True)
                Image.fromarray(image.permute(1, 2, 0).numpy()).save(root / part / classes[label] / f"{index}.png")
    return root


def words(root: Path, output: Path, *more: str) -> list[str]:
    data = ["--data.source", "folder", "--data.root", str(root), "--data.image_size", "16"]
    return [*data, "-o", str(output), "--epochs", "10", "--precision", "fp32", *more]
