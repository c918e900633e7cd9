"""One picture of several runs' predictions for the same test images."""

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from colordist.errors import UserError
from colordist.reporting.comparison import Comparison
from colordist.reporting.gallery import Images, gallery

_TILE = 96  # pixels that a small image is enlarged to, at least
_GAP = 12  # beside a name


def picture(comparison: Comparison) -> Image.Image:
    """Draw the grey input, each run's newest predictions and the target as rows. Raises UserError if a run has none."""
    found = gallery(comparison.runs)
    if found is None:
        raise UserError(f"{comparison.runs[0].folder.path} has no samples yet: train it first")
    for run, reason in found.left_out.items():
        raise UserError(f"{run.folder.path} {reason}: it can't be shown beside {comparison.names[comparison.runs[0]]}")
    rows = {comparison.names[run]: images for run, images in found.predictions.items()}
    return _draw({"grey": found.grey, **rows, "target": found.target})


def _draw(rows: dict[str, Images]) -> Image.Image:
    """Stack rows, enlarged, each with its name on the left."""
    count, tile = next(iter(rows.values())).shape[:2]
    scale = -(-_TILE // tile)
    height, width = tile * scale, count * tile * scale
    font = ImageFont.load_default(20)
    margin = 2 * _GAP + math.ceil(max(font.getlength(name) for name in rows))
    picture = Image.new("RGB", (margin + width, len(rows) * (height + 2) - 2), "white")
    pen = ImageDraw.Draw(picture)
    for number, (name, images) in enumerate(rows.items()):
        top = number * (height + 2)
        pen.text((margin - _GAP, top + height / 2), name, fill="black", font=font, anchor="rm")
        enlarged = Image.fromarray(np.concatenate([*images], axis=1)).resize((width, height), Image.Resampling.NEAREST)
        picture.paste(enlarged, (margin, top))
    return picture
