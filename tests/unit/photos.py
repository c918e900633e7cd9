"""Photos of noise, and a tiny network that colours them."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from helpers import config_with, write_snapshot
from numpy.typing import NDArray
from PIL import Image

from colordist.color import ColorSpace
from colordist.models.factory import build_generator

SIZE, DEPTH = 16, 2
Space = Literal["lab", "rgb"]


def snapshot_in(folder: Path, space: Space = "lab", name: str = "unet", noise: int = 0, *, hints: bool = False) -> Path:
    """A tiny network that answers a riot of colour, since its last layer isn't zero."""
    noisy = {"model.noise": noise} if noise else {}
    small = {"model.name": name, "model.color_space": space, "model.width": 4, "model.depth": DEPTH}
    settings, conditions = config_with(small | noisy).model, 1 + ColorSpace(space).channels if hints else 0
    torch.manual_seed(0)
    network = build_generator(settings, inputs=1 + conditions, conditions=conditions)
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter)
    write_snapshot(folder, settings, network, hints=hints, image_size=SIZE)
    return folder


def noise(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Coarse blobs, fine noise, every alpha: whatever the mode can hold."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (height, width, 4), np.uint8)
    blobs = Image.fromarray(random.integers(0, 256, (4, 4, 4), np.uint8)).resize((width, height))
    mixed = Image.fromarray(np.where(pixels[..., :1] < 64, pixels, np.asarray(blobs)))
    if mode == "I;16":
        return Image.fromarray(np.asarray(mixed.convert("L")).astype(np.uint16) * 257)
    if mode in ("I", "F"):
        return mixed.convert("L").convert(mode)
    if mode in ("PA", "La"):
        return mixed.convert("LA").convert(mode)
    return mixed.convert("RGB" if mode in ("LAB", "HSV", "CMYK", "YCbCr", "P") else "RGBA").convert(mode)


def pixels(image: Image.Image) -> NDArray[np.int64]:
    return np.asarray(image).astype(np.int64)
