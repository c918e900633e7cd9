"""Colour hints of a user: points of a photo, each with a colour."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import torch
from PIL import ImageColor
from torch import Tensor

from colordist.color import AB_SCALE, ColorSpace, srgb_to_lab
from colordist.data.hints import SIDE, painted, squares
from colordist.errors import UserError
from colordist.files.atomic import content
from colordist.files.documents import Malformed, parse_json

MOST = 1000
"""Maximum number of hints of a photo."""


@dataclass(frozen=True)
class Hint:
    """A colour at a point of a photo. Its hue and chroma count: the lightness is the photo's."""

    x: float
    """Pixels from the left edge of the upright photo."""
    y: float
    """Pixels from its top edge."""
    color: str
    """Colour as in CSS: '#2e6da4', 'rgb(46, 109, 164)' or a name."""

    def __post_init__(self) -> None:
        """Raise UserError for values that are no point or no colour."""
        for name, value in {"x": self.x, "y": self.y}.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
                raise UserError(f"hint: {name} is {value!r}, but must be a number of pixels")
        _ = self.ab

    @cached_property
    def ab(self) -> tuple[float, float]:
        """Lab a and b divided by AB_SCALE."""
        try:
            red, green, blue = ImageColor.getrgb(self.color)[:3]
        except (ValueError, AttributeError, TypeError):
            raise UserError(f"hint: color is {self.color!r}, but must be a colour, as '#2e6da4'") from None
        rgb = torch.tensor([red, green, blue], dtype=torch.float64).view(3, 1, 1) / 255
        _, a, b = (srgb_to_lab(rgb).flatten() / AB_SCALE).tolist()
        return a, b


class _Point(msgspec.Struct, forbid_unknown_fields=True):
    x: float
    y: float
    color: str


_Points = Annotated[list[_Point], msgspec.Meta(max_length=MOST)]


def read_hints(file: Path) -> dict[str, list[Hint]]:
    """Read a JSON file of hints, by photo. A list alone, for a single photo, has the name ''.

    ``{"photo.jpg": [{"x": 310, "y": 52, "color": "#2e6da4"}, ...], ...}`` or ``[{...}, ...]``. Raises UserError.
    """
    if (text := content(file)) is None:
        raise UserError(f"--hints {file}: there is no such file")
    try:
        found = parse_json(text, _Points | dict[str, _Points])  # type: ignore[arg-type]  # a union
        named = {"": found} if isinstance(found, list) else found
        return {name: [Hint(each.x, each.y, each.color) for each in points] for name, points in named.items()}
    except (Malformed, UserError) as error:
        raise UserError(
            f'--hints {file}: {error}; it has to be as {{"photo.jpg": [{{"x": 310, "y": 52, "color": "#2e6da4"}}]}}'
        ) from None


def check_within(hints: Sequence[Hint], size: tuple[int, int]) -> None:
    """Raise UserError for a hint outside of a photo of a width and height, or for too many."""
    width, height = size
    if len(hints) > MOST:
        raise UserError(f"there are {len(hints)} hints, but at most {MOST} for a photo: leave some out")
    for each in hints:
        if not (0 <= each.x < width and 0 <= each.y < height):
            raise UserError(f"hint: {each.x:g}, {each.y:g} is outside of the photo, which has {width}x{height} pixels")


def hint_channels(
    space: ColorSpace, hints: Sequence[Sequence[Hint]], sizes: Sequence[tuple[int, int]], grey: Tensor
) -> Tensor:
    """The hints of some photos as channels of a network's input: [B, C + 1, H, W], see ``data.hints.painted``.

    sizes: width and height of the photos that the points refer to; grey: [B, 1, H, W] in [-1, 1].
    """
    most = max(map(len, hints))
    points, sides = np.zeros((len(hints), most, 2)), np.zeros((len(hints), most), np.int64)
    color = grey.new_zeros(len(hints), most, 2)
    for index, (each, (width, height)) in enumerate(zip(hints, sizes, strict=True)):
        for number, hint in enumerate(each):
            points[index, number], sides[index, number] = (hint.y / height, hint.x / width), SIDE
            color[index, number] = color.new_tensor(hint.ab)
    where = torch.from_numpy(squares(points, sides, *grey.shape[2:])).to(grey.device)
    ab, mask = painted(where, color, grey).split([2, 1], dim=1)
    if space.name == "rgb":
        return torch.cat([(ColorSpace("lab").join(grey, ab) * 2 - 1) * mask, mask], dim=1)
    return torch.cat([ab, mask], dim=1)
