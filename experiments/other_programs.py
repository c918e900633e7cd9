"""Two classical programs for the referee: colour from one reference photograph, without training.

    python experiments/other_programs.py --photos PHOTOS --references TRAIN --out runs/others
    python -m colordist.evaluate --answers runs/others/* --truth PHOTOS -o others.html

The reference of a photograph is the one of --candidates photographs of TRAIN, evenly spaced in the order of names,
whose histogram of luma is nearest. From it two programs colour the luma:

- ``levels``: match the histograms of luma, then give each level the mean a,b of the reference's pixels at its quantile.
- ``welsh``: give each pixel the a,b of the nearest of 196 jittered samples of the reference, by luma and its standard
  deviation in a 5x5 window (Welsh, Ashikhmin, Mueller: "Transferring color to greyscale images", SIGGRAPH 2002).
"""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from colordist.color import AB_SCALE, ColorSpace, luma, srgb_to_lab, to_8_bits
from colordist.data.decode import decode, image_files

LAB = ColorSpace("lab")
BINS = 64  # of equal counts
GRID, WINDOW = 14, 5  # samples a side; pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="Folder of the photographs to colour.")
    parser.add_argument("--references", type=Path, required=True, help="Folder of other photographs.")
    parser.add_argument("--candidates", type=int, default=300)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    files = image_files(options.references)
    candidates = [image(files[i * len(files) // options.candidates]) for i in range(options.candidates)]
    histograms = torch.stack([histogram(luma(each)) for each in candidates])
    for path in image_files(options.photos):
        grey = luma(image(path))
        nearest = (histograms - histogram(grey)).abs().sum(dim=1).argmin()
        for name, program in PROGRAMS.items():
            ab = program(grey, candidates[int(nearest)])
            target = options.out / name / path.relative_to(options.photos).with_suffix(".png")
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(joined(grey, ab)).save(target)


def image(path: Path) -> Tensor:
    """uint8 [3, H, W]."""
    return torch.from_numpy(np.array(decode(path))).permute(2, 0, 1)


def histogram(grey: Tensor) -> Tensor:
    """Shares of 32 bins of luma: [32]."""
    return torch.histc(grey.float(), 32, 0, 256) / grey.numel()


def joined(grey: Tensor, ab: Tensor) -> NDArray[np.uint8]:
    """The L of luma, uint8 [1, H, W], with a and b, [2, H, W]: uint8 [H, W, 3]."""
    rgb = LAB.join(grey.unsqueeze(0) / 127.5 - 1, ab.unsqueeze(0).float() / AB_SCALE)
    return to_8_bits(rgb)[0].permute(1, 2, 0).numpy()


def levels(grey: Tensor, reference: Tensor) -> Tensor:
    """a and b by the quantile of luma: [2, H, W]."""
    order = luma(reference).flatten().argsort(stable=True)
    sorted_ab = srgb_to_lab(reference / 255)[1:].flatten(1)[:, order]
    means = torch.stack([part.mean(dim=1) for part in sorted_ab.tensor_split(BINS, dim=1)], dim=1)
    counts = torch.bincount(grey.flatten(), minlength=256).double()
    quantile = ((counts.cumsum(0) - counts / 2) / counts.sum())[grey[0].long()]  # the middle of each level
    centers = (np.arange(BINS) + 0.5) / BINS
    return torch.from_numpy(np.stack([np.interp(quantile.numpy(), centers, each.numpy()) for each in means]))


def welsh(grey: Tensor, reference: Tensor) -> Tensor:
    """a and b by luma and its deviation around each pixel: [2, H, W]."""
    of_reference = luma(reference)
    own, other = grey.float(), of_reference.float()
    remapped = (other - other.mean()) * own.std() / other.std().clamp(min=1) + own.mean()
    height, width = remapped.shape[1:]
    random = torch.Generator().manual_seed(0)
    cells = torch.cartesian_prod(torch.arange(GRID), torch.arange(GRID)) + torch.rand(GRID**2, 2, generator=random)
    rows, columns = (cells * torch.tensor([height, width]) / GRID).long().unbind(1)
    samples = torch.stack([remapped[0], deviation(remapped)])[:, rows, columns]
    pixels = torch.stack([own[0], deviation(own)]).flatten(1)
    nearest = (pixels.unsqueeze(2) - samples.unsqueeze(1)).abs().sum(dim=0).argmin(dim=1)
    return srgb_to_lab(reference / 255)[1:, rows, columns][:, nearest].view(2, *grey.shape[1:])


def deviation(grey: Tensor) -> Tensor:
    """Standard deviation in the window around each pixel: [1, H, W] to [H, W]."""
    mean, square = (
        F.avg_pool2d(each.unsqueeze(0), WINDOW, 1, WINDOW // 2, count_include_pad=False)[0, 0]
        for each in (grey, grey**2)
    )
    return (square - mean**2).clamp(min=0).sqrt()


PROGRAMS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {"levels": levels, "welsh": welsh}

if __name__ == "__main__":
    main()
