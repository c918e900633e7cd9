"""Pictures that open in a viewer: a divider between two of them, the next and the previous example.

A page imports ``viewer.html``, includes ``viewer.css`` in its style, and places ``viewer.dialog()`` once, after all
examples. Everything is embedded. Without JavaScript the pictures are shown, but don't open.
"""

import io
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from colordist.reporting.template import environment

LOSSLESS = 64
"""Longer side, in pixels, up to which pictures are embedded exactly, and enlarged without smoothing."""
MAX_SIZE = 1024
"""Longer side, in pixels, to which larger pictures are reduced."""

_QUALITY = 92

Picture = Image.Image | NDArray[np.uint8]
"""RGB; as an array [H, W, 3]."""


@dataclass(frozen=True)
class Example:
    """Pictures of the same scene and size, such as grey input, predictions and target."""

    name: str
    pictures: Mapping[str, Picture]
    """By label, from left to right. The last one is what the others are compared with at first."""
    caption: str = ""


@dataclass(frozen=True)
class Embedded:
    """A picture in a page."""

    uri: str
    width: int
    height: int

    @property
    def is_exact(self) -> bool:
        """Whether it is stored losslessly, and shown pixel by pixel."""
        return max(self.width, self.height) <= LOSSLESS


def figures(examples: Sequence[Example]) -> Markup:
    """Examples below each other, each with its name, caption and labeled pictures. May be called several times."""
    shown = [
        {
            "name": each.name,
            "caption": each.caption,
            "pictures": {label: embed(picture) for label, picture in each.pictures.items()},
        }
        for each in examples
    ]
    macros = environment().get_template("viewer.html").module
    return Markup(macros.figures(shown))  # type: ignore[attr-defined]


def embed(picture: Picture) -> Embedded:
    """Encode as a data URI: PNG up to LOSSLESS pixels, else JPEG without chroma subsampling, at most MAX_SIZE."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image, buffer = image.convert("RGB"), io.BytesIO()
    if max(image.size) <= LOSSLESS:
        image.save(buffer, "PNG", optimize=True)
        kind = "png"
    else:
        image.thumbnail((MAX_SIZE, MAX_SIZE), Image.Resampling.LANCZOS)
        image.save(buffer, "JPEG", quality=_QUALITY, subsampling=0)
        kind = "jpeg"
    return Embedded(f"data:image/{kind};base64,{b64encode(buffer.getvalue()).decode()}", *image.size)


def storage_note(size: int) -> str:
    """Describe the encoding of square pictures of a size; empty if lossless."""
    if size <= LOSSLESS:
        return ""
    reduced = f"reduced from {size} to {MAX_SIZE} pixels and " if size > MAX_SIZE else ""
    return f"In this page the images are {reduced}compressed (JPEG, quality {_QUALITY})."
