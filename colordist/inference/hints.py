"""Colour hints of a user: points of a photo, each with a colour."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import torch
from PIL import ImageColor
from torch import Tensor

from colordist.color import AB_SCALE, ColorSpace, srgb_to_lab
from colordist.data.hints import SIDE, painted, square_means, squares
from colordist.errors import UserError, shortened
from colordist.files.atomic import content
from colordist.files.documents import Malformed, parse_json

MOST = 1000
"""Maximum number of hints of a photo."""
MOST_PIXELS = 2**31


@dataclass(frozen=True)
class Hint:
    """A colour at a point of a photo. Its hue and chroma count: the lightness is the photo's."""

    x: float
    """Pixels from the left edge of the upright photo."""
    y: float
    """Pixels from its top edge."""
    color: str
    """'#2e6da4', 'rgb(46, 109, 164)', 'hsl(208, 56%, 41%)' or a name of CSS."""

    def __post_init__(self) -> None:
        """Raise UserError for values that are no point or no colour."""
        given: dict[str, Any] = {"x": self.x, "y": self.y}
        for name, value in given.items():
            if isinstance(value, bool) or not isinstance(value, Real) or not abs(value) < MOST_PIXELS:  # type: ignore[operator]
                raise UserError(f"hint: {name} is {shortened(repr(value), 60)}, but must be a number of pixels")
        _ = self.ab

    @cached_property
    def ab(self) -> tuple[float, float]:
        """Lab a and b divided by AB_SCALE."""
        try:
            channels = ImageColor.getrgb(self.color)
            if len(channels) != 3 or not all(0 <= each <= 255 for each in channels):
                raise ValueError
        except (ValueError, AttributeError, TypeError):
            given = shortened(repr(self.color), 60)
            raise UserError(f"hint: color is {given}, but must be a colour, as '#2e6da4'") from None
        rgb = torch.tensor(channels, dtype=torch.float64).view(3, 1, 1) / 255
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
    if file.is_dir():
        raise UserError(f"--hints {file} is a folder: name a JSON file")
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
    """Raise UserError for what are no hints, for one outside of a photo of a width and height, or for too many."""
    width, height = size
    if isinstance(hints, Hint) or not all(isinstance(each, Hint) for each in hints):
        raise UserError("hints: they must be a list of Hint for each photo, as [Hint(310, 52, '#2e6da4')]")
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
    ab = grey.new_zeros(len(hints), most, 2)
    for index, (each, (width, height)) in enumerate(zip(hints, sizes, strict=True)):
        for number, hint in enumerate(each):
            points[index, number], sides[index, number] = (hint.y / height, hint.x / width), SIDE
            ab[index, number] = ab.new_tensor(hint.ab)
    where = torch.from_numpy(squares(points, sides, *grey.shape[2:])).to(grey.device)
    # In training, colours are those of real pixels: within the gamut at the square's lightness, and one for all of it.
    rgb = ColorSpace("lab").join(_as_image(square_means(where, grey)), _as_image(ab))
    color = rgb * 2 - 1 if space.name == "rgb" else srgb_to_lab(rgb)[:, 1:] / AB_SCALE
    return painted(where, color[..., 0].transpose(1, 2), grey)


def _as_image(points: Tensor) -> Tensor:
    """[B, P, C] -> [B, C, P, 1]."""
    return points.transpose(1, 2).unsqueeze(3)
