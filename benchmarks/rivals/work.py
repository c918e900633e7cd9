"""What all rivals of ``benchmarks/league.py`` share: options, images, networks and losses, and a record of each step.

All train the conditional GAN of colordist.yaml: the same initial weights, the same images, the same losses.
"""

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from colordist.color import ColorSpace
from colordist.models.discriminator import Discriminator, PatchGANSettings
from colordist.models.seeding import seeded
from colordist.models.unet import UNet, UNetSettings
from colordist.tasks.losses import bce, pixel_distance

CONFIG = Path(__file__).with_name("colordist.yaml")
SEED, SIZE, IMAGES, BATCH = 0, 32, 512, 16
PIXEL_WEIGHT = 10.0
LEARNING_RATE, BETAS = 5e-4, (0.5, 0.99)
_ID_BITS = 9


def options() -> argparse.Namespace:
    """Options of a rival."""
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        "--images", type=Path, default=Path("league/images"), help="folder of images, written if absent"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints; the same command continues")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--save-every", type=int, default=20, help="steps between checkpoints")
    parser.add_argument("--width", type=int, default=16, help="of both networks; 64: a checkpoint of 136 MB")
    parser.add_argument("--processes", type=int, default=1, help="for rivals that start their processes themselves")
    found = parser.parse_args()
    write_images(found.images)
    return found


# --- images


def write_images(folder: Path) -> None:
    """Write the images: smooth noise, with the number of the image in the first row of pixels, a bit each."""
    if folder.exists():
        return
    random, draft = np.random.default_rng(SEED), folder.with_name(f"{folder.name}-{os.getpid()}")
    for part, count in (("train", IMAGES), ("test", 8)):
        (draft / part / "noise").mkdir(parents=True)
        for number in range(count):
            small = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
            pixels = np.array(small.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
            pixels[0, :_ID_BITS] = 255 * (number >> np.arange(_ID_BITS) & 1)[:, None]
            Image.fromarray(pixels).save(draft / part / "noise" / f"{number:04d}.png")
    draft.rename(folder)


def image_numbers(grey: Tensor) -> list[int]:
    """The numbers of the images in a batch of grey inputs, [B, 1, H, W] in [-1, 1]."""
    bits = (grey[:, 0, 0, :_ID_BITS] > 0).cpu().numpy()
    return (bits * (1 << np.arange(_ID_BITS))).sum(1).tolist()  # type: ignore[no-any-return]


class Images(Dataset[tuple[Tensor, Tensor]]):
    """Grey input, [1, H, W], and target colours, [2, H, W], of each training image."""

    def __init__(self, folder: Path) -> None:
        self.files = sorted((folder / "train").rglob("*.png"))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        with Image.open(self.files[index]) as image:
            rgb = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
        grey, color = ColorSpace("lab").split(rgb[None], torch.float32)
        return grey[0], color[0]


# --- networks and losses


def networks(width: int) -> tuple[nn.Module, nn.Module, torch.optim.Optimizer, torch.optim.Optimizer]:
    """Generator, discriminator and their optimizers; with the initial weights that colordist.yaml gives."""
    unet = UNetSettings(width=width, color_space="lab")
    patchgan = PatchGANSettings(width=width, spectral_norm=False)
    built: list[nn.Module] = [
        seeded(SEED, lambda: UNet(unet, inputs=1, outputs=2)),
        seeded(SEED + 1, lambda: Discriminator(patchgan, inputs=3)),
    ]
    g, d = (network.to(memory_format=torch.channels_last) for network in built)  # type: ignore[call-overload]
    optimizers = [torch.optim.Adam(each.parameters(), LEARNING_RATE, BETAS, fused=True) for each in (g, d)]
    return g, d, optimizers[0], optimizers[1]


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Loss of the discriminator's logits."""
    return (bce(real, 1) + bce(fake, 0)) / 2


def generator_loss(color: Tensor, target: Tensor, logits: Tensor) -> Tensor:
    """Loss of the generator, from the discriminator's logits of its colours."""
    return PIXEL_WEIGHT * pixel_distance("l1", color, target) + bce(logits, 1)


# --- what the league measures


class Recorder:
    """Writes a line of JSON after each step of a process. Lines with the word aren't counted as the user's."""

    def __init__(self, out: Path, rank: int) -> None:
        folder = out / "seen"
        folder.mkdir(parents=True, exist_ok=True)
        attempt = int(os.environ.get("LEAGUE_ATTEMPT", 0))
        self.out, self.rank = out, rank
        self._file = (folder / f"{attempt:03d}-{rank}-{time.time_ns()}.jsonl").open("w", buffering=1)

    def step(self, step: int, grey: Tensor) -> None:
        """Record a step that is done, counted from 1, by its images and what the network has carried so far."""
        found = {"step": step, "time": time.monotonic(), "pid": os.getpid(), "rank": self.rank}
        self._file.write(json.dumps(found | {"images": image_numbers(grey), "bytes": _carried()}) + "\n")

    def finish(self, generator: nn.Module) -> None:
        """Save the weights at the end."""
        if self.rank == 0:
            weights = {name: each.detach().contiguous() for name, each in generator.state_dict().items()}
            torch.save(weights, self.out / "final.pt")


def _carried() -> int:
    """Bytes that the loopback interface has carried; exact for a run in a network namespace of its own."""
    lines = Path("/proc/self/net/dev").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.strip().startswith("lo:"))
