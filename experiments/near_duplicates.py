"""Near-duplicates between training and test photographs: counted, shown side by side, moved out of the training set.

    python experiments/efficientnet_lite.py lite1 -o tf_efficientnet_lite1.safetensors
    python experiments/near_duplicates.py photos --weights tf_efficientnet_lite1.safetensors --crops Faces Faces_easy \
        --sheet duplicates.png --remove removed

The folder holds train/CLASS/*.jpg and test/CLASS/*.jpg. A test and a training photograph are near-duplicates if any of
these holds, each also after mirroring the test photograph:

- the Hamming distance of their dHash or of their pHash (64 bits each) is at most `--bits`;
- the cosine similarity of their pooled features, of a timm model with weights from a file, is at least `--cosine`;
- they have the same file name, and their classes are the two that `--crops` names: the same photographs, cropped.

`--also` adds training photographs that were found by eye. `--remove` moves the training photographs among them to
another folder, under the same CLASS/NAME; nothing else is changed, and the test set stays as it is. Duplicates within
the training set are counted only (mirrored ones by the hashes alone). There are no random numbers: the same photographs
and options give the same answer.
"""

import argparse
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps
from safetensors.torch import load_file
from scipy.fft import dctn
from timm.data import resolve_data_config
from torch import Tensor, nn

FLIP = Image.Transpose.FLIP_LEFT_RIGHT
PHOTO = 110  # pixels of the contact sheet
COLUMNS = 8


@dataclass
class Photos:
    """Descriptions of photographs; the last but one dimension is [as it is, mirrored]."""

    files: list[Path]
    hashes: Tensor
    """-1 or 1: [N, hashes, 2, 64]."""
    features: Tensor
    """Of norm 1: [N, 2, C], or [N, 1, C] without mirrored ones."""


@dataclass
class Similarity:
    """Of each test photograph to each training photograph: [N, M]."""

    cosine: Tensor
    bits: Tensor
    crops: Tensor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="train/CLASS/*.jpg and test/CLASS/*.jpg")
    parser.add_argument("--model", default="tf_efficientnet_lite1", help="of timm; default: %(default)s")
    parser.add_argument("--weights", type=Path, required=True, metavar="FILE", help="the model's, as safetensors")
    parser.add_argument("--cosine", type=float, default=0.88, help="lowest cosine similarity; default: %(default)s")
    parser.add_argument("--bits", type=int, default=4, help="largest Hamming distance; default: %(default)s")
    parser.add_argument("--crops", nargs=2, default=[], metavar="CLASS", help="two classes of the same photographs")
    parser.add_argument("--also", nargs="+", default=[], metavar="CLASS/NAME", help="training photographs found by eye")
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="where to draw the pairs, test photograph left")
    parser.add_argument("--remove", type=Path, metavar="DIR", help="where to move training photographs to")
    options = parser.parse_args()
    also = [options.folder / "train" / name for name in options.also]
    if lost := [str(file) for file in also if not file.exists()]:
        parser.error(f"--also: no such file: {', '.join(lost)}")

    model = timm.create_model(options.model).eval()
    model.load_state_dict(load_file(options.weights))
    test = described(options.folder / "test", model, mirrored=True)
    train = described(options.folder / "train", model, mirrored=False)
    found = similarity(test, train, options.crops)
    pairs = (found.cosine >= options.cosine) | (found.bits <= options.bits) | found.crops
    print(f"{len(train.files)} training and {len(test.files)} test photographs")
    print_counts(found, pairs, options.cosine, options.bits)
    print_known(found, options.cosine, options.bits)
    print_within(train, options.cosine, options.bits)
    if options.sheet:
        draw(options.sheet, test, train, found, pairs & ~found.crops)
    chosen = sorted({train.files[i] for i in pairs.any(0).nonzero().flatten().tolist()}.union(also))
    print(f"to remove: {len(chosen)} of {len(train.files)}, {len(also)} of them by --also")
    print(", ".join(f"{name} {count}" for name, count in Counter(file.parent.name for file in chosen).most_common()))
    if options.remove:
        for file in chosen:
            target = options.remove / file.parent.name / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(file, target)
        print(f"left: {len(list((options.folder / 'train').glob('*/*.jpg')))}")


@torch.inference_mode()
def described(folder: Path, model: nn.Module, mirrored: bool) -> Photos:
    """Hashes and features of all photographs in CLASS/*.jpg, in the order of their names."""
    config = resolve_data_config({}, model=model)
    mean, std = (torch.tensor(config[key])[:, None, None] for key in ("mean", "std"))
    files = sorted(folder.glob("*/*.jpg"))
    hashes, features = [], []
    for file in files:
        image = Image.open(file).convert("RGB")
        both = [image, image.transpose(FLIP)]
        hashes.append(np.stack([[dhash(each) for each in both], [phash(each) for each in both]]))
        small = image.resize(config["input_size"][:0:-1], Image.Resampling.BICUBIC)  # not cropped: edges matter
        pixels = (torch.from_numpy(np.array(small)).permute(2, 0, 1) / 255 - mean) / std
        batch = torch.stack([pixels, pixels.flip(2)] if mirrored else [pixels])
        pooled = model.forward_head(model.forward_features(batch), pre_logits=True)
        features.append(nn.functional.normalize(pooled, dim=1))
    signs = torch.from_numpy(np.stack(hashes)).float() * 2 - 1
    return Photos(files, signs, torch.stack(features))


def dhash(image: Image.Image) -> NDArray[np.bool_]:
    """Whether brightness rises from left to right, of 8x8 differences: [64]."""
    grey = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.LANCZOS))
    return (grey[:, 1:] > grey[:, :-1]).ravel()


def phash(image: Image.Image) -> NDArray[np.bool_]:
    """Whether a coefficient of the discrete cosine transform is above the median, of the lowest 8x8: [64]."""
    grey = np.asarray(image.convert("L").resize((32, 32), Image.Resampling.LANCZOS), dtype=np.float64)
    low = dctn(grey)[:8, :8].ravel()
    return low > np.median(low)


def similarity(test: Photos, train: Photos, crops: list[str]) -> Similarity:
    """By the better of a test photograph and its mirror image."""
    plain = train.features[:, 0]
    cosine = torch.stack([each @ plain.T for each in test.features.unbind(1)]).amax(0)
    return Similarity(cosine, hamming(test.hashes, train.hashes), cropped(test.files, train.files, crops))


def hamming(first: Tensor, second: Tensor) -> Tensor:
    """The smallest distance of any hash, also of mirrored ones: [N, H, 2, 64], [M, H, 2, 64] -> [N, M]."""
    distance = torch.full((len(first), len(second)), 64.0)
    for kind in range(first.shape[1]):
        for side in range(2):
            torch.minimum(distance, (64 - first[:, kind, side] @ second[:, kind, 0].T) / 2, out=distance)
    return distance


def cropped(test: list[Path], train: list[Path], crops: list[str]) -> Tensor:
    """Whether they have the same file name, one in each of the two classes: [N, M]."""
    same = torch.zeros(len(test), len(train), dtype=torch.bool)
    place = {(file.parent.name, file.name): index for index, file in enumerate(train)}
    for index, file in enumerate(test):
        for other in crops:
            found = place.get((other, file.name))
            if file.parent.name in crops and other != file.parent.name and found is not None:
                same[index, found] = True
    return same


def print_counts(found: Similarity, pairs: Tensor, cosine: float, bits: int) -> None:
    """Pairs, test photographs and training photographs by each criterion."""
    rows = {f"cosine >= {value:.2f}": found.cosine >= value for value in sorted({0.95, 0.9, cosine, 0.85})[::-1]}
    rows |= {f"Hamming <= {value}": found.bits <= value for value in sorted({0, bits, 8})}
    rows |= {"crops by name": found.crops, "all": pairs}
    print(f"{'':16}{'pairs':>8}{'test':>8}{'train':>8}")
    for name, mask in rows.items():
        print(f"{name:16}{int(mask.sum()):8}{int(mask.any(1).sum()):8}{int(mask.any(0).sum()):8}")


def print_known(found: Similarity, cosine: float, bits: int) -> None:
    """How many of the crops known by name the other criteria find."""
    values, distances = found.cosine[found.crops], found.bits[found.crops]
    if len(values):
        print(
            f"of {len(values)} crops known by name: cosine finds {int((values >= cosine).sum())} "
            f"({values.min():.2f} to {values.max():.2f}), hashes find {int((distances <= bits).sum())}"
        )


def print_within(train: Photos, cosine: float, bits: int) -> None:
    """Training photographs that have a near-duplicate in the training set."""
    plain = train.features[:, 0]
    rows = {f"cosine >= {value:.2f}": plain @ plain.T >= value for value in (0.95, cosine)}
    rows[f"Hamming <= {bits}"] = hamming(train.hashes, train.hashes) <= bits
    for name, mask in rows.items():
        mask = (mask | mask.T).fill_diagonal_(False)
        print(f"within training, {name}: {int(mask.sum()) // 2} pairs of {int(mask.any(1).sum())} photographs")


def draw(path: Path, test: Photos, train: Photos, found: Similarity, pairs: Tensor) -> None:
    """A contact sheet of pairs, the most similar first."""
    places = sorted(pairs.nonzero().tolist(), key=lambda place: -float(found.cosine[tuple(place)]))
    width, height = 2 * PHOTO + 10, PHOTO + 14
    sheet = Image.new("RGB", (COLUMNS * width, -(-len(places) // COLUMNS) * height), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (i, j) in enumerate(places):
        left, top = number % COLUMNS * width, number // COLUMNS * height
        for side, file in enumerate((test.files[i], train.files[j])):
            photo = ImageOps.pad(Image.open(file).convert("RGB"), (PHOTO, PHOTO))
            sheet.paste(photo, (left + side * PHOTO, top + 13))
        label = f"{number} {test.files[i].parent.name[:14]} {found.cosine[i, j]:.3f} {int(found.bits[i, j])}"
        pen.text((left, top), label, fill="black")
    sheet.save(path)


if __name__ == "__main__":
    main()
