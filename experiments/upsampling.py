"""Upsampling of chroma to a photo's resolution: colour errors near edges of chroma and elsewhere, by several methods.

    python experiments/upsampling.py photos --json upsampling.json --picture upsampling.png --run runs/photos

The folder holds train/CLASS/* and test/CLASS/*. True a,b of photographs, scaled down as training images are, are
brought back and compared with the truth: CIEDE2000 at the true lightness, mean over the pixels of an image, then over
images; in brackets relative to bilinear; last the median over images of the ratio near edges. *Near edges*: within 3
pixels of two adjacent pixels (across or down) whose a,b are more than 10 apart. Settings are tuned (`--tune`) on
scikit-image's photographs and a sample of the training photographs; the test photographs are for the result alone.
`--run` adds a network's answers to the picture.

- *low guided filter*: He, Sun 2015, arXiv 1505.00996: local linear model at low resolution, radius 1.
- *full guided filter*: He, Sun, Tang 2010, after bilinear upsampling, radius half a pixel of the low resolution.
- *joint bilateral*: Kopf et al. 2007, 3x3 pixels of the low resolution, deviations 0.7 pixels and 0.05 of luma.
- *bicubic*: what `guided` does where luma is flat.
- *best slope*: an oracle, bicubic plus luma's detail times the best slope in each window, from the true a,b.
"""

import argparse
import itertools
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

import numpy as np
import skimage.data
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

import colordist
from colordist.color import AB_SCALE, lab_to_srgb, luma, srgb_to_lab, to_8_bits
from colordist.data.decode import image_files, scale
from colordist.inference import upsampling
from colordist.metrics.ciede2000 import ciede2000

SHIPPED = ("astronaut", "chelsea", "coffee", "rocket", "retina", "hubble_deep_field", "ihc", "motorcycle_left", "color")
SHORTER = (32, 64, 128)  # pixels of the shorter side
FACTORS = (4, 8)  # of photographs that are smaller than SMALL
SMALL = 256
STEP, REACH = 10, 3  # units of Lab, pixels
# Photograph, its shorter side when scaled down, left and top of the crop.
CROPS = (
    ("astronaut", 64, (0, 330)),
    ("astronaut", 64, (180, 40)),
    ("coffee", 32, (130, 60)),
    ("rocket", 32, (260, 110)),
    ("chelsea", 32, (110, 70)),
    ("retina", 64, (700, 500)),
)
ANSWERS = (("astronaut", (0, 330)), ("rocket", (260, 110)))
CROP, ENLARGED = 120, 240  # pixels

Scores = dict[str, float]


@dataclass
class Photo:
    """True Lab, [3, H, W], and its a, b at low resolution divided by AB_SCALE, [2, h, w]."""

    lab: Tensor
    grey: Image.Image
    color: Tensor


Method = Callable[[Photo], Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="train/CLASS/* and test/CLASS/*")
    parser.add_argument("--tune", type=int, default=0, metavar="N", help="try settings, also on N training photographs")
    parser.add_argument("--run", type=Path, help="run folder of a network, for the picture")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="crops: bilinear, guided, truth")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.tune:
        results = tune(options.folder, options.tune)
    else:
        tests = image_files(options.folder / "test")
        results = {name: compare(name, group, METHODS) for name, group in groups(shipped(), tests).items()}
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    if options.picture:
        draw(options.run).save(options.picture, quality=85)


# --- measurement


def groups(large: list[Path], small: list[Path]) -> dict[str, list[tuple[Path, float]]]:
    """Photographs and the shorter side they are scaled to."""
    found = {f"scikit-image, {side} pixels": [(file, float(side)) for file in large] for side in SHORTER}
    sides = {file: min(Image.open(file).size) for file in small}
    for factor in FACTORS:
        found[f"{len(small)} photographs, 1/{factor}"] = [
            (file, side / factor) for file, side in sides.items() if side < SMALL
        ]
    return found


def compare(name: str, group: Sequence[tuple[Path, float]], methods: dict[str, Method]) -> dict[str, Scores]:
    """Mean errors of all methods, printed beside those relative to the first."""
    rows: dict[str, list[Scores]] = {method: [] for method in methods}
    for file, shorter in group:
        photo = reduced(Image.open(file).convert("RGB"), shorter)
        near = near_edges(photo.lab[1:])
        for method, upsample in methods.items():
            rows[method].append(errors(photo, upsample(photo), near))
    result = {method: mean(found, rows["bilinear"]) for method, found in rows.items()}
    first = result["bilinear"]
    print(f"\n{name}, n = {len(group)}, {first['images_with_edges']:.0f} with edges")
    for method, scores in result.items():
        parts = (f"{key} {scores[key]:6.3f} ({scores[key] / first[key]:.3f})" for key in ("all", "near", "elsewhere"))
        print(f"{method:22}", *parts, f"{scores['near_ratio']:.3f}", sep="   ", flush=True)
    return result


def reduced(image: Image.Image, shorter: float) -> Photo:
    """Scale a photograph down as training images are."""
    factor = shorter / min(image.size)
    size = round(image.width * factor), round(image.height * factor)
    rgb = tensor(image)
    grey = Image.fromarray(luma(rgb)[0].numpy())
    return Photo(srgb_to_lab(rgb / 255), grey, srgb_to_lab(tensor(scale(image, size)) / 255)[1:] / AB_SCALE)


def near_edges(ab: Tensor) -> Tensor:
    """Whether a pixel is near a step of chroma: [2, H, W] -> [H, W]."""
    edge = torch.zeros(ab.shape[1:])
    down, across = ((ab.diff(dim=dim).norm(dim=0) > STEP).float() for dim in (1, 2))
    edge = torch.maximum(F.pad(down, (0, 0, 1, 0)), F.pad(down, (0, 0, 0, 1)))
    edge = torch.stack([edge, F.pad(across, (1, 0)), F.pad(across, (0, 1))]).amax(0)
    return F.max_pool2d(edge[None], 2 * REACH + 1, 1, REACH)[0] > 0


def errors(photo: Photo, color: Tensor, near: Tensor) -> Scores:
    """Mean CIEDE2000 over pixels; NaN without such pixels."""
    difference = ciede2000(torch.cat([photo.lab[:1], color * AB_SCALE]), photo.lab)
    parts = {"all": difference, "near": difference[near], "elsewhere": difference[~near]}
    return {name: part.mean().item() for name, part in parts.items()}


def mean(rows: Sequence[Scores], others: Sequence[Scores]) -> Scores:
    """Mean over the images that have such pixels, and the median ratio to other errors near edges."""
    found = {key: [row[key] for row in rows if row[key] == row[key]] for key in rows[0]}
    ratios = [row["near"] / other["near"] for row, other in zip(rows, others, strict=True) if other["near"] > 0]
    means = {key: fmean(values) for key, values in found.items()}
    return means | {"near_ratio": median(ratios), "images_with_edges": float(len(ratios))}


def tune(folder: Path, number: int) -> dict[str, dict[str, Scores]]:
    """The default settings beside others, one changed at a time."""
    files = random.Random(0).sample(image_files(folder / "train"), number)
    settings = [("NOISE", 1e-4), ("NOISE", 3e-5), ("NOISE", 3e-4), ("BLUR", 0), ("BLUR", 2)]
    methods = {"bilinear": bilinear} | {f"{name} {value}": changed(name, value) for name, value in settings}
    return {name: compare(name, group, methods) for name, group in groups(shipped(), files).items()}


def changed(name: str, value: float) -> Method:
    """`guided` with another value of one of its constants."""

    def upsample(photo: Photo) -> Tensor:
        default = getattr(upsampling, name)
        setattr(upsampling, name, value)
        try:
            return guided(photo)
        finally:
            setattr(upsampling, name, default)

    return upsample


# --- methods


def bilinear(photo: Photo) -> Tensor:
    return whole("bilinear", photo.color, photo.grey)


def guided(photo: Photo) -> Tensor:
    return whole("guided", photo.color, photo.grey)


def whole(method: str, color: Tensor, grey: Image.Image) -> Tensor:
    """All rows by one of colordist's methods."""
    return upsampling.upsampler(method, color, grey)(range(grey.height))


def bicubic(photo: Photo) -> Tensor:
    return whole("guided", photo.color, Image.new("L", photo.grey.size))


def best_slope(photo: Photo) -> Tensor:
    """Least squares with the true a,b, over windows of the size of three pixels of the low resolution."""
    smooth = bicubic(photo)
    fine, missing = level(photo) - whole("bilinear", coarse_level(photo), photo.grey), photo.lab[1:] / AB_SCALE - smooth
    radius = max(round(photo.grey.width / photo.color.shape[2] * 1.5), 1)
    return smooth + box(fine * missing, radius) / (box(fine * fine, radius) + 1e-6) * fine


def low_guided_filter(photo: Photo) -> Tensor:
    slope, offset = linear_model(photo.color, coarse_level(photo), 1)
    return whole("bilinear", slope, photo.grey) * level(photo) + whole("bilinear", offset, photo.grey)


def full_guided_filter(photo: Photo) -> Tensor:
    radius = max(round(photo.grey.width / photo.color.shape[2] / 2), 1)
    slope, offset = linear_model(bilinear(photo), level(photo), radius)
    return slope * level(photo) + offset


def level(photo: Photo) -> Tensor:
    """Luma in [0, 1], [1, H, W]."""
    return tensor(photo.grey) / 255


def coarse_level(photo: Photo) -> Tensor:
    """Luma at low resolution, [1, h, w]."""
    return tensor(scale(photo.grey, (photo.color.shape[2], photo.color.shape[1]))) / 255


def linear_model(color: Tensor, level: Tensor, radius: int, epsilon: float = 1e-3) -> tuple[Tensor, Tensor]:
    """Averaged coefficients of a guided filter (He, Sun, Tang 2010, eq. 5 and 6): slope and offset."""
    means = [box(each, radius) for each in (color, level, color * level, level * level)]
    slope = (means[2] - means[0] * means[1]) / (means[3] - means[1] * means[1] + epsilon)
    return box(slope, radius), box(means[0] - slope * means[1], radius)


def box(image: Tensor, radius: int) -> Tensor:
    """Mean over (2 radius + 1)^2 pixels, fewer at the border."""
    side = 2 * radius + 1
    rows = F.avg_pool2d(image[None], (side, 1), 1, (radius, 0), count_include_pad=False)
    return F.avg_pool2d(rows, (1, side), 1, (0, radius), count_include_pad=False)[0]


def joint_bilateral(photo: Photo) -> Tensor:
    """Eq. 3 of Kopf et al."""
    coarse, fine = coarse_level(photo), level(photo)
    total, result = torch.full_like(fine, 1e-8), 1e-8 * bilinear(photo)
    for distance, down, across in neighbours(photo.color, photo.grey):
        near = torch.exp(-distance / (2 * 0.7**2) - (fine - coarse[:, down][..., across]) ** 2 / (2 * 0.05**2))
        result += near * photo.color[:, down][..., across]
        total += near
    return result / total


def neighbours(color: Tensor, grey: Image.Image) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Squared distance in pixels of the low resolution, rows and columns of each pixel's 3x3 neighbours."""
    places = [
        (torch.arange(long) + 0.5) * short / long - 0.5
        for long, short in ((grey.height, color.shape[1]), (grey.width, color.shape[2]))
    ]
    for offsets in itertools.product((-1, 0, 1), repeat=2):
        found = [place.round().long() + offset for place, offset in zip(places, offsets, strict=True)]
        y, x = (((place - index) ** 2) for place, index in zip(places, found, strict=True))
        down, across = (index.clamp(0, side - 1) for index, side in zip(found, color.shape[1:], strict=True))
        yield y[:, None] + x, down, across


METHODS: dict[str, Method] = {
    "bilinear": bilinear,
    "guided": guided,
    "bicubic": bicubic,
    "low guided filter": low_guided_filter,
    "full guided filter": full_guided_filter,
    "joint bilateral": joint_bilateral,
    "best slope": best_slope,
}


# --- files and pictures


def shipped() -> list[Path]:
    """Photographs that scikit-image ships."""
    folder = Path(skimage.data.__file__).parent
    return [next(folder.glob(f"{name}.*[gG]")) for name in SHIPPED]


def tensor(image: Image.Image) -> Tensor:
    """Mode L or RGB -> uint8 [1 or 3, H, W]."""
    return torch.from_numpy(np.atleast_3d(np.array(image))).permute(2, 0, 1)


def draw(run: Path | None) -> Image.Image:
    """Enlarged crops, two photographs in a row: of true a,b, then of a network's."""
    triples = [crops(*place) for place in CROPS]
    if run:
        triples += [answers(run, *place) for place in ANSWERS]
    sheet = Image.new("RGB", (6 * ENLARGED + 12, 14 + len(triples) // 2 * (ENLARGED + 4)), "white")
    for (number, triple), column in itertools.product(enumerate(triples), range(3)):
        left = (number % 2 * 3 + column) * ENLARGED + number % 2 * 12
        large = triple[column].resize((ENLARGED, ENLARGED), Image.Resampling.BICUBIC)
        sheet.paste(large, (left, 14 + number // 2 * (ENLARGED + 4)))
        ImageDraw.Draw(sheet).text((left + 4, 1), ("bilinear", "guided", "photograph")[column], fill="black")
    return sheet


def crops(name: str, shorter: int, corner: tuple[int, int]) -> list[Image.Image]:
    """Bilinear, guided and true a,b at the true lightness."""
    image = opened(name)
    photo = reduced(image, shorter)
    results = []
    for method in ("bilinear", "guided"):
        lab = torch.cat([photo.lab[:1], METHODS[method](photo) * AB_SCALE])
        results.append(Image.fromarray(to_8_bits(lab_to_srgb(lab)).permute(1, 2, 0).numpy()))
    return [cut(each, corner) for each in (*results, image)]


def answers(run: Path, name: str, corner: tuple[int, int]) -> list[Image.Image]:
    """A network's answers, bilinear and guided, and the photograph."""
    image = opened(name)
    results = [colordist.load(run, upsample=method)(image) for method in ("bilinear", "guided")]
    return [cut(each, corner) for each in (*results, image)]


def opened(name: str) -> Image.Image:
    return Image.open(shipped()[SHIPPED.index(name)]).convert("RGB")


def cut(image: Image.Image, corner: tuple[int, int]) -> Image.Image:
    left, top = corner
    return image.crop((left, top, left + CROP, top + CROP))


if __name__ == "__main__":
    main()
