"""One picture of several runs: the same test images through each of them."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from colordist.config import UserError
from colordist.data.source import Image as Pixels
from colordist.reporting.names import labels
from colordist.run.folder import RunFolder, numbered

_TILE = 96  # pixels that a small image is enlarged to, at least
_GAP = 12  # beside a name


def comparison(runs: Sequence[RunFolder]) -> Image.Image:
    """Rows: the grey input, each run's newest answer, the truth. Raises UserError for runs on different images."""
    grids = {name: _newest_grid(run) for name, run in zip(labels(runs), runs, strict=True)}
    first = next(iter(grids.values()))
    grey, _, target = np.split(first, 3)
    rows = {"grey": grey}
    for name, grid in grids.items():
        if grid.shape != first.shape or not np.array_equal(np.split(grid, 3)[2], target):
            raise UserError(f"{name} shows other test images than {next(iter(grids))}: they can't be compared")
        rows[name] = np.split(grid, 3)[1]
    return _draw(rows | {"truth": target})


def _newest_grid(run: RunFolder) -> Pixels:
    files = numbered(run.samples, r"\.png")
    if not files:
        raise UserError(f"{run.path} holds no samples: train it first")
    return np.asarray(Image.open(files[-1]).convert("RGB"))


def _draw(rows: dict[str, Pixels]) -> Image.Image:
    """Rows below each other, enlarged, each with its name at the left."""
    tile = len(next(iter(rows.values())))
    scale = -(-_TILE // tile)
    height, width = tile * scale, next(iter(rows.values())).shape[1] * scale
    font = ImageFont.load_default(20)
    margin = 2 * _GAP + math.ceil(max(font.getlength(name) for name in rows))
    picture = Image.new("RGB", (margin + width, len(rows) * (height + 2) - 2), "white")
    pen = ImageDraw.Draw(picture)
    for number, (name, row) in enumerate(rows.items()):
        top = number * (height + 2)
        pen.text((margin - _GAP, top + height / 2), name, fill="black", font=font, anchor="rm")
        enlarged = Image.fromarray(row).resize((width, height), Image.Resampling.NEAREST)
        picture.paste(enlarged, (margin, top))
    return picture
