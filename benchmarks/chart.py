"""Lines over a number of GPUs, drawn with Pillow: small, legible, on white."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from PIL import Image, ImageDraw, ImageFont

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#555555")  # told apart by colour-blind people (Okabe and Ito)
WIDTH, HEIGHT = 430, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 16, 34, 44  # margins
SCALE = 2  # drawn larger, for screens with small pixels

Line = Sequence[tuple[int, float]]
"""Numbers of GPUs, at least 1, and shares, from 0 on."""


@dataclass(frozen=True)
class Panel:
    """One chart."""

    title: str
    lines: dict[str, Line]


def draw(panels: Sequence[Panel], spec: str = "") -> Image.Image:
    """Panels side by side, with a legend below a heading in the first."""
    picture = Image.new("RGB", (SCALE * WIDTH * len(panels), SCALE * HEIGHT), "white")
    pen = ImageDraw.Draw(picture)
    for number, panel in enumerate(panels):
        points = [point for line in panel.lines.values() for point in line]
        top = max(5, math.ceil(5 * max(y for _, y in points)))
        axes = _Axes(pen, number * WIDTH, max(x for x, _ in points), top)
        axes.draw(panel)
        if number == 0:
            axes.legend(spec, list(panel.lines))
    return picture


@dataclass(frozen=True)
class _Axes:
    """Where things are in one panel."""

    pen: ImageDraw.ImageDraw
    offset: int
    most: int
    """GPUs."""
    top: int
    """In steps of 20 %."""

    def draw(self, panel: Panel) -> None:
        self._grid(panel.title)
        for number, line in enumerate(panel.lines.values()):
            color = COLORS[number % len(COLORS)]
            points = [self._at(x, y) for x, y in line]
            for pair in pairwise(points):
                self.pen.line(pair, fill=color, width=2 * SCALE)
            for point in points:
                self.pen.circle(point, 3 * SCALE, fill=color)

    def legend(self, spec: str, names: Sequence[str]) -> None:
        left, bottom = self._at(1, 0)
        for number, name in enumerate([spec, *names]):
            y = bottom - SCALE * (12 + 18 * (len(names) - number))
            if number:
                color = COLORS[(number - 1) % len(COLORS)]
                self.pen.line([(left + 8, y), (left + 48, y)], fill=color, width=2 * SCALE)
            self._text((left + (58 if number else 8), y), name, "lm")

    def _grid(self, title: str) -> None:
        for number in range(self.top + 1):
            x, y = self._at(1, number / 5)
            self.pen.line([(x, y), self._at(self.most, number / 5)], fill="#dddddd", width=SCALE)
            self._text((x - 8 * SCALE, y), f"{20 * number} %", "rm")
        for power in range(0, int(math.log2(self.most)) + 1, 3):
            x, y = self._at(2**power, 0)
            self._text((x, y + 6 * SCALE), str(2**power), "ma")
        middle = SCALE * (self.offset + (LEFT + WIDTH - RIGHT) / 2)
        self._text((middle, SCALE * (HEIGHT - 6)), "GPUs", "md")
        self._text((middle, SCALE * 10), title, "ma")

    def _text(self, place: tuple[float, float], text: str, anchor: str) -> None:
        self.pen.text(place, text, fill="black", font=ImageFont.load_default(12 * SCALE), anchor=anchor)

    def _at(self, x: float, y: float) -> tuple[float, float]:
        """The pixel of a point."""
        along = math.log2(x) / max(1.0, math.log2(self.most))
        return (
            SCALE * (self.offset + LEFT + along * (WIDTH - LEFT - RIGHT)),
            SCALE * (HEIGHT - BOTTOM - 5 * y / self.top * (HEIGHT - TOP - BOTTOM)),
        )
