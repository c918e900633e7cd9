"""Painted landscapes whose colours can be inferred from texture, shade and position: sky, sea, grass, roofs, snow.

Every material has a colour ramp from shade to light, and a texture that identifies it even in grey and at 32x32.
Positions are in units of the image side, y pointing down.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from colordist.data.sources.ambiguous import Home
from colordist.data.sources.canvas import Array, Canvas, Color, Ramp, Stream, clip, fraction, line, smooth, wave

Homes = dict[Home, tuple[float, float]]  # range of y of an object's foot; in the air, of its centre

GRASS: Ramp = ((34, 84, 26), (158, 196, 74))
HILL: Ramp = ((44, 92, 66), (112, 158, 106))
ROCK: Ramp = ((66, 72, 104), (150, 152, 176))
SNOW: Ramp = ((176, 194, 228), (252, 252, 252))
SAND: Ramp = ((204, 164, 104), (248, 226, 172))
SEA: Ramp = ((8, 60, 104), (84, 182, 186))
LAKE: Ramp = ((22, 48, 84), (120, 164, 196))
CLIFF: Ramp = ((112, 38, 24), (232, 142, 84))
DUNE: Ramp = ((184, 104, 52), (246, 190, 118))
LEAVES: Ramp = ((14, 46, 18), (112, 156, 56))
NEEDLES: Ramp = ((6, 30, 28), (50, 92, 62))
CACTUS: Ramp = ((20, 62, 34), (88, 142, 72))
ASPHALT: Ramp = ((76, 76, 82), (120, 120, 124))
PLASTER: Ramp = ((214, 200, 170), (250, 240, 214))
ROOF: Ramp = ((92, 28, 20), (176, 72, 48))
LAVENDER: Ramp = ((58, 36, 92), (168, 128, 206))
WHEAT: Ramp = ((168, 112, 30), (250, 214, 110))
VINES: Ramp = ((66, 58, 30), (84, 150, 48))
GLINT: Ramp = ((206, 228, 234), (206, 228, 234))
WHITE: Ramp = ((255, 255, 255), (255, 255, 255))


@dataclass(frozen=True)
class Light:
    """Lighting: the sky's colours from zenith to horizon, clouds, sun, and the tint of everything else."""

    zenith: Color
    middle: Color
    horizon: Color
    cloud: Ramp
    sun: Color
    tint: tuple[float, float, float]


DAY = Light(
    zenith=(50, 116, 200),
    middle=(122, 180, 232),
    horizon=(214, 234, 242),
    cloud=((206, 212, 224), (255, 255, 255)),
    sun=(255, 246, 196),
    tint=(1.0, 1.0, 1.0),
)
DUSK = Light(
    zenith=(44, 34, 92),
    middle=(206, 92, 96),
    horizon=(255, 208, 116),
    cloud=((120, 60, 104), (250, 160, 130)),
    sun=(255, 240, 190),
    tint=(0.95, 0.78, 0.74),
)


def sky(canvas: Canvas, stream: Stream, horizon: float) -> None:
    """A sky down to the horizon, with sun and clouds. Sets the canvas's light."""
    light = DUSK if stream.random() < 0.25 else DAY
    down = clip(canvas.y / horizon)
    canvas.rgb[:] = np.asarray(light.zenith, np.float32)[:, None, None]
    canvas.paint(clip(down * 2), 0.0, (light.middle, light.middle))
    canvas.paint(clip(down * 2 - 1), 0.0, (light.horizon, light.horizon))
    if light is DUSK or stream.random() < 0.5:
        x, y, radius = stream.uniform(0.1, 0.9), horizon * stream.uniform(0.25, 0.75), stream.uniform(0.05, 0.075)
        away = (canvas.x - x) * (canvas.x - x) + (canvas.y - y) * (canvas.y - y)
        canvas.paint(0.6 / (1 + away * 120), 0.0, (light.sun, light.sun))
        canvas.paint(canvas.soft(radius - np.sqrt(away)), 0.0, (light.sun, light.sun))
    puffs = 0.65 * canvas.noise(stream, 9, 4) + 0.35 * canvas.noise(stream, 20, 10)
    clear = stream.uniform(0.45, 0.75)
    canvas.paint(0.95 * smooth(puffs, clear, clear + 0.14), (puffs - clear) * 5, light.cloud)
    canvas.light = np.asarray(light.tint, np.float32)[:, None, None]


def ridge(canvas: Canvas, stream: Stream, top: float, height: float, peaks: int) -> Array:
    """The height of a jagged skyline at each column, [1, W]: y from ``top`` down to ``top + height``."""
    coarse, fine = stream.random(2 * peaks + 1, np.float32), stream.random(8 * peaks + 1, np.float32)
    coarse[::2] = 1 - 0.3 * coarse[::2]  # passes, and between them the peaks
    coarse[1::2] = 0.4 * coarse[1::2]
    return top + height * (0.75 * line(coarse, canvas.x) + 0.25 * line(fine, canvas.x))


def mountains(canvas: Canvas, stream: Stream, horizon: float) -> None:
    """Far mountains, one flank in the light, some with snow."""
    height = stream.uniform(0.2, 0.32)
    skyline = ridge(canvas, stream, horizon - height, height, int(stream.integers(2, 5)))
    depth = canvas.y - skyline
    flanks = 0.6 * smooth(canvas.noise(stream, 3, 9) + 0.3 * canvas.noise(stream, 12, 24), 0.5, 0.8)
    coverage = canvas.soft(depth)
    canvas.paint(coverage, 0.2 + flanks, ROCK)
    if stream.random() < 0.7:
        line_of_snow = horizon - height * stream.uniform(0.4, 0.6) + 0.08 * (canvas.noise(stream, 2, 14) - 0.5)
        canvas.paint(coverage * canvas.soft(line_of_snow - canvas.y), 0.3 + flanks, SNOW)


def hills(canvas: Canvas, stream: Stream, horizon: float) -> None:
    """Low wooded hills, paler than the meadows before them."""
    heights = canvas.noise(stream, 1, 4)[:1]
    depth = canvas.y - (horizon - 0.16 * heights)
    canvas.paint(canvas.soft(depth), 0.75 - 4 * depth + 0.5 * (canvas.noise(stream, 40, 40) - 0.5), HILL)


def meadow(canvas: Canvas, stream: Stream, top: Array | float) -> None:
    """Grass from ``top`` to the bottom: upright blades, larger and darker towards the viewer."""
    depth = canvas.y - top
    blades = canvas.noise(stream, 30, 90) - 0.5
    patches = canvas.noise(stream, 6, 5) - 0.5
    canvas.paint(canvas.soft(depth), 0.62 - 0.35 * depth + 0.6 * blades + 0.3 * patches, GRASS)


def snow(canvas: Canvas, stream: Stream, top: float) -> None:
    """Snow from ``top`` to the bottom, in soft drifts."""
    drifts = canvas.noise(stream, 14, 4)
    canvas.paint(canvas.soft(canvas.y - top), 0.35 + 0.65 * drifts, SNOW)


def water(canvas: Canvas, stream: Stream, top: float, ramp: Ramp) -> None:
    """Water from ``top`` to the bottom: long waves, lying closer together towards the horizon."""
    depth = clip((canvas.y - top) / (1 - top))
    swell = canvas.noise(stream, 56, 7) - 0.5
    crests = canvas.noise(stream, 70, 9)
    shade = 0.15 + 0.5 * depth + 0.4 * swell
    canvas.paint(canvas.soft(canvas.y - top), shade, ramp)
    canvas.paint(0.8 * smooth(crests, 0.8, 0.92) * canvas.soft(canvas.y - top), 0.0, GLINT)


def beach(canvas: Canvas, stream: Stream, top: float) -> None:
    """Sand from a winding shoreline near ``top`` to the bottom, with foam along it."""
    shore = top + 0.1 * (canvas.noise(stream, 1, 3)[:1] - 0.5) + stream.uniform(-0.12, 0.12) * (canvas.x - 0.5)
    depth = canvas.y - shore
    grains = canvas.noise(stream, 90, 90) - 0.5
    ripples = canvas.noise(stream, 24, 6) - 0.5
    canvas.paint(canvas.soft(depth + 0.02), 1.0, WHITE)
    canvas.paint(canvas.soft(depth), clip(0.2 + 6 * depth) * 0.7 + 0.3 * grains + 0.25 * ripples, SAND)


def dunes(canvas: Canvas, stream: Stream, top: float) -> None:
    """Orange sand in long dunes with sharp crests."""
    wind = canvas.noise(stream, 3, 3)
    slopes = (canvas.y - top) * 5 + 1.6 * wind + 0.8 * canvas.x
    canvas.paint(canvas.soft(canvas.y - top), 1 - 0.8 * fraction(slopes), DUNE)


def mesas(canvas: Canvas, stream: Stream, horizon: float) -> None:
    """Flat-topped cliffs of red rock in level layers."""
    bends = canvas.noise(stream, 4, 6)
    layers = 0.7 * line(stream.random(24, np.float32), canvas.y + 0.03 * bends) + 0.3 * canvas.noise(stream, 8, 30)
    for _ in range(int(stream.integers(2, 4))):
        x, width, height = stream.uniform(0, 1), stream.uniform(0.1, 0.24), stream.uniform(0.12, 0.26)
        flank = width + 0.4 * (canvas.y - horizon + height) - np.abs(canvas.x - x) + 0.04 * (bends - 0.5)
        canvas.paint(canvas.soft(np.minimum(flank, canvas.y - horizon + height)), layers, CLIFF)


def rows(canvas: Canvas, stream: Stream, top: float) -> None:
    """Two fields, each planted in rows that meet at the horizon."""
    first, second = stream.permutation(3)[:2]
    vanishing, slant = stream.uniform(0.2, 0.8), stream.uniform(-0.6, 0.6)
    depth = canvas.y - top
    across = (canvas.x - vanishing) / (np.maximum(depth, 0) + 0.06)
    furrows = wave(across * 2.2) * clip(0.3 + 2.5 * depth) + 0.35 * (canvas.noise(stream, 70, 70) - 0.5)
    ground = canvas.soft(depth)
    crops = (LAVENDER, WHEAT, VINES)
    canvas.paint(ground, 0.2 + 0.8 * furrows, crops[first])
    canvas.paint(ground * canvas.soft((across - slant) * (depth + 0.06)), 0.2 + 0.8 * furrows, crops[second])


def road(canvas: Canvas, stream: Stream, top: float) -> None:
    """A grey road that winds from the horizon to the viewer."""
    depth = np.maximum(canvas.y - top, 0) / (1 - top)
    middle = (
        stream.uniform(0.25, 0.75)
        + stream.uniform(-0.4, 0.4) * depth * (1 - depth) * 2
        + stream.uniform(-0.2, 0.2) * depth
    )
    width = 0.008 + 0.2 * depth
    away = np.abs(canvas.x - middle)
    on_ground = canvas.soft(canvas.y - top)
    canvas.paint(on_ground * canvas.soft(width - away), 0.5 + 0.7 * (canvas.noise(stream, 90, 90) - 0.5), ASPHALT)
    dashes = canvas.soft(0.06 * width - away) * (wave(3 / (depth + 0.3)) > 0.5)
    canvas.paint(on_ground * dashes, 0.9, PLASTER)


def tree(canvas: Canvas, stream: Stream, x: float, foot: float, height: float) -> None:
    """A round tree: dark mottled crown, brown trunk."""
    part = canvas.window(x - 0.5 * height, foot - 1.1 * height, x + 0.5 * height, foot + 0.02)
    u, v = (part.x - x) / height, (part.y - foot) / height
    leaves = part.noise(stream, 11, 10)
    part.paint(part.soft((0.05 - np.abs(u)) * height) * ((v < 0) & (v > -0.5)), 0.5, ((70, 44, 26), (104, 70, 44)))
    away = np.sqrt(u * u * 1.25 + (v + 0.65) * (v + 0.65)) - 0.16 * (leaves - 0.5)
    part.paint(part.soft((0.36 - away) * height), 0.9 * leaves - 0.7 * (u + v + 0.65), LEAVES)


def conifer(canvas: Canvas, stream: Stream, x: float, foot: float, height: float) -> None:
    """A dark conifer with three tiers of branches."""
    part = canvas.window(x - 0.4 * height, foot - height - 0.02, x + 0.4 * height, foot + 0.02)
    u, v = (part.x - x) / height, (part.y - foot) / height + 1
    width = 0.3 * v * (0.55 + 0.45 * fraction(v * 3.5))
    inside = np.minimum(width - np.abs(u), np.minimum(v, 0.94 - v))
    part.paint(part.soft(inside * height), 0.8 * part.noise(stream, 14, 8) - 0.8 * u, NEEDLES)


def cactus(canvas: Canvas, stream: Stream, x: float, foot: float, height: float) -> None:
    """A ribbed cactus with two arms."""
    part = canvas.window(x - 0.4 * height, foot - height, x + 0.4 * height, foot + 0.02)
    u, v = (part.x - x) / height, (foot - part.y) / height
    side = stream.uniform(0.3, 0.5)
    stem = np.minimum(0.1 - np.abs(u), np.minimum(0.95 - v, v))
    arms = np.minimum(0.07 - np.abs(np.abs(u) - 0.26), np.minimum(0.75 - v, v - side))
    elbows = np.minimum(0.07 - np.abs(v - side), 0.3 - np.abs(u))
    part.paint(part.soft(np.maximum(stem, np.maximum(arms, elbows)) * height), 0.6 - 2 * u + 0.5 * wave(u * 14), CACTUS)


def house(canvas: Canvas, stream: Stream, x: float, foot: float, height: float) -> None:
    """A plastered house: tiled roof, door, windows."""
    half = height * stream.uniform(0.55, 0.75)
    part = canvas.window(x - 1.25 * half, foot - 1.05 * height, x + 1.25 * half, foot + 0.02)
    u, v = (part.x - x) / half, (foot - part.y) / height
    wall = part.soft(np.minimum((0.95 - np.abs(u)) * half, np.minimum(v, 0.6 - v) * height))
    part.paint(wall, 0.7 - 0.4 * u, PLASTER)
    part.paint(wall * part.soft(np.minimum((0.16 - np.abs(u)) * half, (0.36 - v) * height)), 0.0, ((82, 50, 34),) * 2)
    window = np.minimum((0.17 - np.abs(np.abs(u) - 0.58)) * half, (0.11 - np.abs(v - 0.34)) * height)
    part.paint(wall * part.soft(window), 0.0, ((58, 70, 92),) * 2)
    roof = np.minimum((1.15 - 1.6 * np.maximum(v - 0.56, 0) - np.abs(u)) * half, np.minimum(v - 0.56, 1 - v) * height)
    part.paint(part.soft(roof), 0.35 + 0.5 * wave(v * 14) * part.noise(stream, 8, 16), ROOF)


Thing = Callable[[Canvas, Stream, float, float, float], None]


def scatter(canvas: Canvas, stream: Stream, thing: Thing, count: int, feet: tuple[float, float], height: float) -> None:
    """Paint objects on the ground, far ones first and smaller. ``height``: of an object at the near end."""
    for near in np.sort(stream.random(count)).tolist():
        foot = feet[0] + near * (feet[1] - feet[0])
        thing(
            canvas, stream, stream.uniform(0.02, 0.98), foot, height * (0.55 + 0.45 * near) * stream.uniform(0.85, 1.15)
        )


def coast(canvas: Canvas, stream: Stream) -> Homes:
    """Sea and beach."""
    horizon, shore = stream.uniform(0.36, 0.46), stream.uniform(0.68, 0.76)
    sky(canvas, stream, horizon)
    if stream.random() < 0.4:
        mountains(canvas, stream, horizon)
    water(canvas, stream, horizon, SEA)
    beach(canvas, stream, shore)
    return {"air": (0.2, horizon - 0.1), "water": (horizon + 0.14, shore - 0.05), "beach": (shore + 0.14, 0.97)}


def alps(canvas: Canvas, stream: Stream) -> Homes:
    """Mountains above a meadow with conifers."""
    horizon = stream.uniform(0.42, 0.55)
    sky(canvas, stream, horizon)
    mountains(canvas, stream, horizon)
    meadow(canvas, stream, horizon)
    scatter(canvas, stream, conifer, int(stream.integers(5, 11)), (horizon + 0.04, horizon + 0.22), 0.3)
    return {"air": (0.2, 0.35), "camp": (0.8, 0.96), "garden": (0.88, 0.98)}


def village(canvas: Canvas, stream: Stream) -> Homes:
    """Houses and trees along a road."""
    horizon = stream.uniform(0.4, 0.52)
    sky(canvas, stream, horizon)
    hills(canvas, stream, horizon)
    meadow(canvas, stream, horizon)
    road(canvas, stream, horizon)
    scatter(canvas, stream, tree, int(stream.integers(1, 4)), (horizon + 0.06, horizon + 0.16), 0.26)
    scatter(canvas, stream, house, int(stream.integers(1, 4)), (horizon + 0.1, horizon + 0.26), 0.28)
    return {"air": (0.2, 0.32), "road": (0.82, 0.97)}


def countryside(canvas: Canvas, stream: Stream) -> Homes:
    """Fields in rows, with a farmhouse."""
    horizon = stream.uniform(0.36, 0.48)
    sky(canvas, stream, horizon)
    hills(canvas, stream, horizon)
    rows(canvas, stream, horizon)
    scatter(canvas, stream, tree, int(stream.integers(1, 4)), (horizon + 0.02, horizon + 0.1), 0.2)
    scatter(canvas, stream, house, int(stream.integers(0, 2)), (horizon + 0.06, horizon + 0.14), 0.24)
    return {"air": (0.2, 0.32), "garden": (0.88, 0.98), "road": (0.82, 0.97)}


def desert(canvas: Canvas, stream: Stream) -> Homes:
    """Red cliffs, dunes and cacti."""
    horizon = stream.uniform(0.45, 0.56)
    sky(canvas, stream, horizon)
    mesas(canvas, stream, horizon + 0.02)
    dunes(canvas, stream, horizon)
    scatter(canvas, stream, cactus, int(stream.integers(2, 6)), (horizon + 0.1, horizon + 0.34), 0.3)
    return {"air": (0.2, 0.32), "camp": (0.82, 0.97), "road": (0.82, 0.97)}


def lakeside(canvas: Canvas, stream: Stream) -> Homes:
    """A lake between woods and meadow."""
    horizon, shore = stream.uniform(0.36, 0.46), stream.uniform(0.74, 0.82)
    sky(canvas, stream, horizon)
    (mountains if stream.random() < 0.6 else hills)(canvas, stream, horizon)
    water(canvas, stream, horizon, LAKE)
    scatter(canvas, stream, conifer, int(stream.integers(9, 15)), (horizon + 0.015, horizon + 0.025), 0.2)
    meadow(canvas, stream, shore + 0.1 * (canvas.noise(stream, 1, 3)[:1] - 0.5))
    return {"air": (0.2, 0.3), "water": (horizon + 0.2, shore - 0.03), "camp": (0.9, 0.98), "garden": (0.9, 0.98)}


def winter(canvas: Canvas, stream: Stream) -> Homes:
    """Snow, conifers and a house."""
    horizon = stream.uniform(0.42, 0.54)
    sky(canvas, stream, horizon)
    mountains(canvas, stream, horizon)
    snow(canvas, stream, horizon)
    scatter(canvas, stream, conifer, int(stream.integers(4, 9)), (horizon + 0.04, horizon + 0.2), 0.32)
    scatter(canvas, stream, house, int(stream.integers(0, 2)), (horizon + 0.12, horizon + 0.26), 0.28)
    return {"air": (0.2, 0.32), "camp": (0.82, 0.97), "road": (0.84, 0.97)}


LANDSCAPES = (coast, alps, village, countryside, desert, lakeside, winter)
