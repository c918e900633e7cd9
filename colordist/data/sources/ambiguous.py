"""Objects of ambiguous colour: three equally likely colours with the same grey.

An object is painted in shades of grey. A table then maps each grey to one of three colours whose luma, rounded to 8
bits, is exactly that grey: the grey image is the same for each of them.

Why three: between two equally likely colours every prediction has the same mean absolute error. Among three the best
single prediction is the channel-wise median, which here is almost grey, as is the mean.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from colordist.color import lab_to_srgb, luma, srgb_to_lab
from colordist.data.sources.canvas import Array, Canvas, smooth, wave

# Mean Lab a, b over GREYS of rose, azure and green. Azure has a = 0, rose b = 0, with the other two on either side: so
# the median of both channels is 0. With hues 120 degrees apart it would not be.
AMBIGUOUS_AB: tuple[tuple[float, float], ...] = ((57.0, 0.0), (0.0, -46.0), (-52.0, 50.0))

GREYS = range(94, 160)  # of ambiguous objects: all three colours are in the sRGB gamut at each


@functools.cache
def color_table() -> NDArray[np.uint8]:
    """RGB [3, 256, 3] by colour and grey: nearest to AMBIGUOUS_AB with exactly that luma; 0 outside of GREYS."""
    table = np.zeros((len(AMBIGUOUS_AB), 256, 3), np.uint8)
    for which, (a, b) in enumerate(AMBIGUOUS_AB):
        lightness = torch.linspace(25, 80, 551, dtype=torch.float64)
        lab = torch.stack([lightness, torch.full_like(lightness, a), torch.full_like(lightness, b)])[..., None]
        near = (lab_to_srgb(lab) * 255).round().to(torch.int64)  # [3, 551, 1]: along a line of constant a and b
        steps = torch.arange(-2, 3)
        around = torch.cartesian_prod(steps, steps, steps).T[:, None]  # [3, 1, 125]
        candidates = (near + around).clamp(0, 255).to(torch.uint8).flatten(1)[..., None]
        error = (srgb_to_lab(candidates.double() / 255)[1:] - torch.tensor([a, b])[:, None, None]).square().sum(0)[:, 0]
        nearest_first = error.argsort(stable=True).numpy()
        greys, first = np.unique(luma(candidates).flatten().numpy()[nearest_first], return_index=True)
        table[which, greys] = candidates[:, nearest_first[first], 0].T.numpy()
    table[:, [grey for grey in range(256) if grey not in GREYS]] = 0
    return table


def _part(canvas: Canvas, x: float, y: float, radius: float) -> tuple[Canvas, Array, Array]:
    """The canvas around an object, and coordinates in which the object spans [-1, 1]."""
    part = canvas.window(x - 1.7 * radius, y - 1.7 * radius, x + 1.7 * radius, y + 1.7 * radius)
    return part, (part.x - x) / radius, (part.y - y) / radius


def _shadow(part: Canvas, u: Array, v: Array, width: float) -> None:
    """A shadow on the ground below an object."""
    part.darken(1 - smooth((u / width) * (u / width) + (v - 1) * (v - 1) * 40, 0.4, 1.0), 0.5)


def balloon(canvas: Canvas, number: int, x: float, y: float, radius: float) -> None:
    """A hot-air balloon with bright and dark gores."""
    part, u, v = _part(canvas, x, y, radius)
    u, v = u * 1.2, v * 1.2 + 0.2
    width = np.where(v < 0.5, np.sqrt(np.maximum(1 - v * v, 0)), 0.866 - 0.65 * (v - 0.5)).astype(np.float32)
    inside = (np.abs(u) < width) & (v > -1) & (v < 1.15)
    across = u / np.maximum(width, 0.05)
    part.detail((np.abs(u) < 0.2) & (v >= 1.15) & (v < 1.6), (70, 45, 25))
    part.mark(inside, 0.75 * smooth(wave(across * 1.5 + 0.5), 0.3, 0.7) + 0.25 * (1 - across) * 0.5, number)


def kite(canvas: Canvas, number: int, x: float, y: float, radius: float) -> None:
    """A kite of four panels, with a tail."""
    part, u, v = _part(canvas, x, y, radius)
    u = u + 0.25 * v
    below = np.maximum(v - 0.2, 0) / 0.8
    inside = np.abs(u) < 0.85 * np.minimum(1 - below, (v + 1) / 1.2)
    sway = 0.25 * (wave(v * 1.1) - 0.5)
    part.detail((np.abs(u - sway) < 0.09) & (v > 0.9), (60, 50, 60))
    part.mark(inside, 0.15 + 0.7 * ((u > 0) ^ (v > -0.2)), number)


def sail(canvas: Canvas, number: int, x: float, y: float, radius: float) -> None:
    """A sailing boat: sails of ambiguous colour over a dark wooden hull."""
    part, u, v = _part(canvas, x, y, radius)
    down = (v + 1) / 1.6
    main = (u > -0.08) & (u < 0.92 * down) & (v < 0.6)
    jib = (u <= -0.22) & (u > -0.22 - 0.62 * (down - 0.15)) & (v < 0.6)
    part.darken(part.soft((0.25 - np.abs(v - 1.05)) * radius) * part.soft((0.7 - np.abs(u)) * radius), 0.3)
    part.detail((np.abs(u + 0.15) < 0.07) & (np.abs(v) < 1), (75, 50, 30))
    part.detail((v >= 0.68) & (v < 1.02) & (np.abs(u) < 0.95 - 0.9 * (v - 0.68)), (92, 52, 30))
    part.mark(main, 0.95 - 0.55 * wave(v * 1.6) - 0.3 * u, number)
    part.mark(jib, 0.2 + 0.4 * down, number)


def parasol(canvas: Canvas, number: int, x: float, y: float, radius: float) -> None:
    """A parasol with wedges, its pole in the sand."""
    part, u, v = _part(canvas, x, y, radius)
    _shadow(part, u, v, 0.9)
    up = (0.1 - v) / 1.1
    inside = (u * u + up * up < 1) & (up > 0)
    across = u / np.maximum(np.sqrt(np.maximum(1 - up * up, 0)), 0.1)
    part.detail((np.abs(u) < 0.08) & (v > -0.1) & (v < 1), (240, 235, 225))
    part.mark(inside, 0.1 + 0.75 * smooth(wave(across * 1.5 + 0.5), 0.35, 0.65) + 0.15 * up, number)


def ball(canvas: Canvas, number: int, x: float, y: float, radius: float) -> None:
    """A beach ball with bright and dark segments."""
    part, u, v = _part(canvas, x, y, radius)
    _shadow(part, u, v, 1.1)
    turned, along = u + 0.4 * v, v - 0.4 * u
    stripes = wave(turned / np.maximum(np.sqrt(np.maximum(1.1 - along * along, 0)), 0.2) + 0.5)
    part.mark(u * u + v * v < 1, 0.55 * smooth(stripes, 0.4, 0.6) + 0.3 - 0.15 * (u + v), number)


def tent(canvas: Canvas, number: int, x: float, y: float, radius: float) -> None:
    """A ridge tent with a dark entrance, one side in the light."""
    part, u, v = _part(canvas, x, y, radius)
    _shadow(part, u, v, 1.3)
    down = (v + 0.6) / 1.6
    front = (np.abs(u + 0.3) < 0.75 * down) & (v < 1)
    side = (u + 0.3 >= 0.75 * down) & (u < 0.55 + 0.5 * down) & (down > 0) & (v < 1)
    part.mark(side, 0.1 + 0.15 * wave(v * 2), number)
    part.mark(front, 0.95 - 0.3 * down, number)
    part.detail((np.abs(u + 0.3) < 0.32 * (down - 0.3)) & (v < 1), (40, 36, 32))


def car(canvas: Canvas, number: int, x: float, y: float, radius: float) -> None:
    """A car seen from the side: dark windows, black wheels, the body ambiguous."""
    part, u, v = _part(canvas, x, y, radius)
    v = v * 1.15
    _shadow(part, u, v * 0.87, 1.2)
    rise = (v + 0.35) / 0.55
    across = np.abs(u + 0.08)
    cabin = (across < 0.42 + 0.28 * rise) & (v > -0.35) & (v < 0.25)
    body = (np.abs(u) < 1 - 0.12 * np.maximum(0.4 - v, 0)) & (v >= 0.2) & (v < 0.9)
    part.mark(cabin, 0.95, number)
    part.mark(body, 0.85 - 0.7 * smooth(v, 0.4, 0.75), number)
    part.detail(
        (np.abs(u + 0.08) < 0.28 + 0.2 * rise) & (np.abs(u + 0.08) > 0.06) & (v > -0.17) & (v < 0.2), (50, 62, 74)
    )
    for wheel in (-0.55, 0.55):
        part.detail((u - wheel) * (u - wheel) + (v - 0.87) * (v - 0.87) < 0.08, (28, 28, 30))


def flower(canvas: Canvas, number: int, x: float, y: float, radius: float) -> None:
    """A large flower close to the viewer: petals of ambiguous colour around a dark heart."""
    part, u, v = _part(canvas, x, y, radius)
    part.detail((np.abs(u - 0.1 * wave(v * 0.6)) < 0.1) & (v > 0.4), (38, 92, 30))
    heart = u * u + v * v
    for along, down in ((0.0, -0.6), (0.57, -0.19), (0.35, 0.49), (-0.35, 0.49), (-0.57, -0.19)):
        away = (u - along) * (u - along) + (v - down) * (v - down)
        part.mark(away < 0.16, 0.1 + 0.75 * heart + 0.5 * (0.1 - away), number)
    part.mark(heart < 0.3, 0.1 + 0.75 * heart, number)
    part.detail(heart < 0.06, (70, 42, 22))


Home = Literal["air", "water", "beach", "camp", "road", "garden"]


@dataclass(frozen=True)
class Kind:
    """A kind of ambiguous object: paint function, range of radii (units of the image side), and place in a scene."""

    paint: Callable[[Canvas, int, float, float, float], None]
    radius: tuple[float, float]
    home: Home


KINDS = (
    Kind(balloon, (0.15, 0.2), "air"),
    Kind(kite, (0.15, 0.18), "air"),
    Kind(sail, (0.17, 0.21), "water"),
    Kind(parasol, (0.17, 0.21), "beach"),
    Kind(ball, (0.11, 0.14), "beach"),
    Kind(tent, (0.15, 0.2), "camp"),
    Kind(car, (0.16, 0.2), "road"),
    Kind(flower, (0.15, 0.18), "garden"),
)
