"""Predictions of several runs for the same test images, cut from their newest sample grids."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from colordist.files.opening import open_regular
from colordist.metrics.ciede2000 import ciede2000
from colordist.metrics.metric import rgb_to_lab
from colordist.reporting.runs import Run
from colordist.run.folder import numbered

Images = NDArray[np.uint8]
"""[N, size, size, 3], RGB."""

_MOST_PIXELS = 3 * 16 * 512**2  # of a grid: 16 images of the largest data.image_size
_MEASURED = 64  # pixels to which larger tiles are reduced to compute distances


@dataclass(frozen=True)
class Gallery:
    """Test images: the grey input, each run's predictions, the target."""

    grey: Images
    predictions: dict[Run, Images]
    target: Images
    left_out: dict[Run, str]
    """Runs left out, with the reason."""

    @property
    def size(self) -> int:
        """Width and height of an image in pixels."""
        return int(self.target.shape[1])

    @cached_property
    def to_target(self) -> dict[Run, NDArray[np.float64]]:
        """Mean CIEDE2000 of each image between prediction and target: [N]."""
        target = _lab(self.target)
        return {run: _distance(lab, target) for run, lab in self._labs.items()}

    @cached_property
    def between_runs(self) -> NDArray[np.float64]:
        """Mean CIEDE2000 of each image between predictions, over all pairs of runs: [N]; 0 for one run."""
        pairs = [_distance(one, other) for one, other in combinations(self._labs.values(), 2)]
        return np.mean(pairs, axis=0) if pairs else np.zeros(len(self.target))

    @cached_property
    def _labs(self) -> dict[Run, torch.Tensor]:
        return {run: _lab(images) for run, images in self.predictions.items()}


def gallery(runs: Sequence[Run]) -> Gallery | None:
    """Cut images out of each run's newest grid. Returns None if no run has one."""
    grids: dict[Run, list[Images]] = {}
    left_out: dict[Run, str] = {}
    for run in runs:
        files = numbered(run.folder.samples, r"\.png")
        if not files:
            left_out[run] = "has no samples yet"
            continue
        try:
            grids[run] = _cut(files[-1])
        except Exception:  # Pillow raises nearly anything
            left_out[run] = f"has a sample grid that can't be read ({files[-1].name})"
    if not grids:
        return None
    grey, _, target = next(iter(grids.values()))
    for run, (_, _, shown) in grids.items():
        if not np.array_equal(shown, target):
            left_out[run] = "shows other test images"
    predictions = {run: images for run, (_, images, _) in grids.items() if run not in left_out}
    return Gallery(grey, predictions, target, left_out)


def _cut(file: Path) -> list[Images]:
    """Split a grid into rows of images, [N, size, size, 3] each."""
    with open_regular(file) as opened, Image.open(opened, formats=["PNG"]) as picture:
        if picture.width * picture.height > _MOST_PIXELS:
            raise ValueError("no grid is that large")
        grid = np.asarray(picture.convert("RGB"))
    size = len(grid) // 3
    if len(grid) != 3 * size or size == 0 or grid.shape[1] % size:
        raise ValueError("no grid of three rows of square images")
    return [np.stack(np.split(row, row.shape[1] // size, axis=1)) for row in np.split(grid, 3)]


def _lab(tiles: Images) -> torch.Tensor:
    """Convert images to CIE Lab, float32 [N, 3, size, size], downsampled to at most _MEASURED pixels."""
    if tiles.shape[1] > _MEASURED:
        small = [Image.fromarray(tile).resize((_MEASURED, _MEASURED), Image.Resampling.BOX) for tile in tiles]
        tiles = np.stack([np.asarray(tile) for tile in small])
    return rgb_to_lab(torch.from_numpy(tiles.copy()).permute(0, 3, 1, 2)).float()


def _distance(one: torch.Tensor, other: torch.Tensor) -> NDArray[np.float64]:
    distance: NDArray[np.float64] = ciede2000(one, other).flatten(1).double().mean(dim=1).numpy()
    return distance
