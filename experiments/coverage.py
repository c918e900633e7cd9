"""How often the kernel distance's 95 % interval covers the true distance, for simulated features.

    python experiments/coverage.py --json coverage.json  # minutes on one core

Features of predictions and targets are paired, with a correlation of 0.8. *shift*: another mean; *scale*: another
spread of positive features; *heavy*: the same with a tail like x^-4; *small*: nearly the same distribution; *equal*:
the same one. The true distance is the mean of that of 20 sets of 5,000.
"""

import argparse
import itertools
import json
from pathlib import Path
from statistics import fmean, stdev

import torch
from torch import Tensor

from colordist.metrics.kernel import kernel_distance, kernel_interval

KINDS = ("shift", "scale", "heavy", "small", "equal")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--images", type=int, nargs="+", default=[100, 500])
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 128], help="features per image")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for width, kind in itertools.product(options.widths, KINDS):
        true = fmean(kernel_distance(*features(kind, 5000, width, seed)) for seed in range(-20, 0))
        for images in options.images:
            rows.append(coverage(kind, images, width, options.trials, true))
            print(rows[-1], flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def coverage(kind: str, images: int, width: int, trials: int, true: float) -> dict[str, str | float]:
    """Percentage of trials whose interval covers the true distance."""
    found = [kernel_interval(*features(kind, images, width, seed)) for seed in range(trials)]
    covered = fmean(low <= true <= high for _, low, high in found)
    spread = stdev(distance for distance, _, _ in found)
    return {
        **{"kind": kind, "images": images, "width": width, "trials": trials, "true": true, "deviation": spread},
        **{"width_of_interval": fmean(high - low for _, low, high in found), "covered_percent": 100 * covered},
    }


def features(kind: str, images: int, width: int, seed: int) -> tuple[Tensor, Tensor]:
    """Features of predictions and targets: [images, width] each, float64."""
    generator = torch.Generator().manual_seed(seed + 2**20)
    one, noise = torch.randn(2, images, width, generator=generator, dtype=torch.float64)
    other = 0.8 * one + 0.6 * noise
    if kind == "shift":
        return one, other + 0.3
    if kind == "scale":
        return one.abs(), 0.8 * other.abs()
    if kind == "heavy":
        size = (0.01 + 0.98 * torch.rand(images, 1, generator=generator, dtype=torch.float64)) ** -0.25
        return one.abs() * size, 0.85 * other.abs() * size
    return one, 0.9 * one + 0.19**0.5 * noise + 0.05 if kind == "small" else other


if __name__ == "__main__":
    main()
