"""Rows of the table of colour hints: x, y, colour. Read from what its users typed, and drawn on the photo."""

import re
import secrets
from collections.abc import Sequence
from pathlib import Path

from PIL import ImageDraw

from colordist.data.decode import decode
from colordist.errors import UserError
from colordist.inference.hints import Hint
from colordist.serving.service import Picture

Row = Sequence[object]
"""x and y in pixels of the upright photo, and a colour, as a table has them: numbers, texts or nothing."""
_RADIUS = 7  # pixels of the small copy


def hints_of(rows: Sequence[Row]) -> tuple[Hint, ...]:
    """Hints of a table, without its empty rows. Raises UserError for a row that is none, with its number."""
    found: list[Hint] = []
    for number, row in enumerate(rows, 1):
        x, y, color = (*map(_text, row[:3]), "", "", "")[:3]
        if not (x or y):
            continue
        try:
            found.append(Hint(_number("x", x), _number("y", y), hex_color(color)))
        except UserError as error:
            raise UserError(f"point {number}: {str(error).removeprefix('hint: ')}") from None
    return tuple(found)


def hex_color(text: str) -> str:
    """A colour as '#rrggbb' where it is one of a colour picker, 'rgba(46.3, 109, 164, 1)'; else the text."""
    numbers = re.fullmatch(r"rgba?\(\s*([\d.]+)\s*,\s*([\d.]+)\s*,\s*([\d.]+)\s*(,\s*[\d.]+\s*)?\)", text.strip())
    try:
        levels = [min(round(float(each)), 255) for each in numbers.groups()[:3]] if numbers else []
    except (ValueError, OverflowError):
        levels = []
    return "#{:02x}{:02x}{:02x}".format(*levels) if levels else text


def full_size(picture: Picture, x: int, y: int) -> tuple[float, float]:
    """The point of a photo under a pixel of its small copy."""
    factor = max(picture.size) / max(picture.small_size)
    return round((x + 0.5) * factor, 1), round((y + 0.5) * factor, 1)


def marked(picture: Picture, rows: Sequence[Row]) -> Path:
    """Save a small copy of a grey photo with its points. Rows that are no points are left out."""
    image = decode(picture.before)
    draw, factor = ImageDraw.Draw(image), image.width / picture.size[0]
    for row in rows:
        try:
            hints = hints_of([row])
        except UserError:
            continue
        for hint in hints:
            for radius, color in ((_RADIUS + 2, "black"), (_RADIUS + 1, "white"), (_RADIUS, hint.color)):
                draw.circle((hint.x * factor, hint.y * factor), radius, fill=color)
    file = picture.before.with_name(f"points-{secrets.token_hex(8)}.jpg")
    image.save(file, "JPEG", quality=90)
    return file


def _text(cell: object) -> str:
    text = "" if cell is None else str(cell).strip()
    return "" if text == "nan" else text


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{name} is {text[:20]!r}, but must be a number of pixels") from None
