"""Canvas and brushes of painted scenes.

Brushes only add, multiply, divide and take square roots: sines and powers differ in the last bit between maths
libraries, and a scene should be the same everywhere.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]  # float32 throughout, which type checkers can't verify
Mask = NDArray[np.bool_]
Color = tuple[int, int, int]  # sRGB, 0 to 255
Ramp = tuple[Color, Color]  # a material's colour in the shade and in the light
Stream = np.random.Generator

_ZERO, _ONE = np.float32(0), np.float32(1)


def clip(values: Array) -> Array:
    """Clip to [0, 1]. Any shape."""
    return np.minimum(np.maximum(values, _ZERO), _ONE)


def smooth(values: Array, low: float, high: float) -> Array:
    """Smoothstep: 0 for values up to ``low``, 1 from ``high`` on. Any shape."""
    t = clip((values - low) / (high - low))
    return t * t * (3 - 2 * t)


def wave(t: Array) -> Array:
    """Periodic parabolas from 0 to 1, with period 1. Any shape."""
    t = fraction(t)
    return 4 * t * (1 - t)


def fraction(t: Array) -> Array:
    """Fractional part, in [0, 1). Any shape."""
    integer: Array = np.floor(t)
    return t - integer


def line(heights: Array, t: Array) -> Array:
    """Linear interpolation of heights; t in [0, 1] from first to last. Returns the shape of t."""
    t = clip(t) * (len(heights) - 1)
    left = np.minimum(t.astype(np.intp), len(heights) - 2)
    before, after = heights.take(left), heights.take(left + 1)
    return before + (t - left.astype(np.float32)) * (after - before)


class Canvas:
    """An image being painted, or a rectangle of it; coordinates in units of the image side.

    ``x`` [1, W] and ``y`` [H, 1] are the pixels' centres, y pointing down. ``rgb`` [3, H, W] holds sRGB from 0 to 255.
    Ambiguous objects are kept separate: ``objects`` [H, W] is the number of the object at a pixel (0: none), ``shade``
    [H, W] its shade in [0, 1]. ``light`` multiplies the colour of everything painted.
    """

    def __init__(self, size: int) -> None:
        centres = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)
        self.x = centres[None, :]
        self.y = centres[:, None]
        self.rgb = np.zeros((3, size, size), np.float32)
        self.shade = np.zeros((size, size), np.float32)
        self.objects = np.zeros((size, size), np.uint8)
        self.size = size
        self.box = (0.0, 0.0, 1.0, 1.0)
        self.light = np.ones((3, 1, 1), np.float32)

    def window(self, left: float, top: float, right: float, bottom: float) -> "Canvas":
        """A view of the canvas inside a box, which may extend beyond the image."""
        columns = slice(max(0, int(left * self.size)), max(0, int(right * self.size) + 1))
        rows = slice(max(0, int(top * self.size)), max(0, int(bottom * self.size) + 1))
        part = object.__new__(Canvas)
        part.x, part.y = self.x[:, columns], self.y[rows]
        part.rgb = self.rgb[:, rows, columns]
        part.shade, part.objects = self.shade[rows, columns], self.objects[rows, columns]
        part.size, part.light, part.box = self.size, self.light, (left, top, right, bottom)
        return part

    def soft(self, distance: Array) -> Array:
        """Coverage in [0, 1] of pixels at this distance inside (positive) or outside (negative) of an edge."""
        return clip(distance * self.size + np.float32(0.5))

    def noise(self, stream: Stream, rows: int, columns: int) -> Array:
        """Value noise in [0, 1]: one random value per cell of the canvas's box, smoothly interpolated. [H, W].

        Cells smaller than a pixel are sampled, not averaged: a texture keeps its contrast at any size.
        """
        left, top, right, bottom = self.box
        heights = stream.random((rows + 2, columns + 2), np.float32)
        row, down = _cells((self.y[:, 0] - top) * (rows / (bottom - top)), rows)
        column, across = _cells((self.x[0] - left) * (columns / (right - left)), columns)
        upper = heights.take(row, 0)
        joined = upper + down[:, None] * (heights.take(row + 1, 0) - upper)
        west = joined.take(column, 1)
        return west + across * (joined.take(column + 1, 1) - west)

    def paint(self, coverage: Array, shade: Array | float, ramp: Ramp) -> None:
        """Blend a material over the canvas. coverage and shade in [0, 1], both broadcast to [H, W]."""
        dark, bright = np.asarray(ramp, np.float32)[..., None, None] * self.light
        color = dark + clip(np.asarray(shade, np.float32)) * (bright - dark)
        self.rgb += coverage * (color - self.rgb)

    def darken(self, coverage: Array, strength: float) -> None:
        """Darken without changing hue. coverage [H, W] in [0, 1]."""
        self.rgb *= 1 - strength * coverage

    def mark(self, mask: Mask, shade: Array | float, number: int) -> None:
        """Put an ambiguous object on top. mask [H, W]: hard edges, as a blended pixel would reveal the colour."""
        self.objects[mask] = number
        self.shade[mask] = clip(np.broadcast_to(np.asarray(shade, np.float32), mask.shape)[mask])

    def detail(self, mask: Mask, color: Color) -> None:
        """Put a part of known colour on top of an ambiguous object. mask [H, W]."""
        self.objects[mask] = 0
        self.rgb[:, mask] = np.asarray(color, np.float32)[:, None]


def _cells(t: Array, count: int) -> tuple[NDArray[np.intp], Array]:
    """Cell of each coordinate, and smoothstep position in it."""
    cell = np.minimum(np.maximum(t, 0).astype(np.intp), count)
    along = clip(t - cell.astype(np.float32))
    return cell, along * along * (3 - 2 * along)
