"""The source ``synthetic``: painted landscapes with a few objects of ambiguous colour.

An image is a function of (seed, split, index, size). Its scene and the colours of its ambiguous objects come from
separate random streams.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from colordist.config import DataConfig
from colordist.data.source import Image, ImageSource, Source
from colordist.data.sources.ambiguous import AMBIGUOUS_AB, GREYS, KINDS, color_table
from colordist.data.sources.canvas import Canvas, Stream
from colordist.data.sources.landscapes import LANDSCAPES, Homes
from colordist.ranges import at_least

__all__ = ["AMBIGUOUS_AB", "Scene", "SyntheticSplit", "SyntheticSource", "paint_scene"]

_COUNTS = (0,) + (1,) * 6 + (2,) * 6 + (3,) * 3  # ambiguous objects per scene, equally likely


@dataclass(frozen=True)
class Scene:
    """A painted scene without the colours of its ambiguous objects.

    ``landscape``: uint8 RGB [size, size, 3]. ``objects``: uint8 [size, size], the number of the object, 0 for none.
    ``grey``: uint8 [size, size], the objects' grey, 0 elsewhere. ``count``: number of objects.
    """

    landscape: Image
    objects: NDArray[np.uint8]
    grey: NDArray[np.uint8]
    count: int

    def colored(self, choices: tuple[int, ...]) -> Image:
        """The image in which object number n has colour ``choices[n - 1]``. Its grey is the same for all choices."""
        image = self.landscape.copy()
        inside = self.objects > 0
        colors = np.asarray(choices, np.intp)[self.objects[inside].astype(np.intp) - 1]
        image[inside] = color_table()[colors, self.grey[inside]]
        return image


def paint_scene(stream: Stream, size: int) -> Scene:
    """Paint one scene. Draws from the stream don't depend on the size, so neither does the composition."""
    canvas = Canvas(size)
    homes = LANDSCAPES[stream.integers(len(LANDSCAPES))](canvas, stream)
    count = _place_objects(canvas, stream, homes)
    grey = GREYS[0] + np.rint(canvas.shade * (len(GREYS) - 1))
    return Scene(
        landscape=np.rint(canvas.rgb).astype(np.uint8).transpose(1, 2, 0).copy(),
        objects=canvas.objects,
        grey=np.where(canvas.objects > 0, grey, 0).astype(np.uint8),
        count=count,
    )


def _place_objects(canvas: Canvas, stream: Stream, homes: Homes) -> int:
    """Paint ambiguous objects at their places, without overlap. Returns their number."""
    regions = list(homes.items())
    placed: list[tuple[float, float, float]] = []
    count = _COUNTS[stream.integers(len(_COUNTS))]
    for _ in range(6 * count):
        home, (low, high) = regions[stream.integers(len(regions))]
        kinds = [kind for kind in KINDS if kind.home == home]
        kind = kinds[stream.integers(len(kinds))]
        radius = stream.uniform(*kind.radius)
        x, y = stream.uniform(radius, 1 - radius), stream.uniform(low, high)
        if home != "air":
            y -= radius
        if all((x - u) ** 2 + (y - v) ** 2 > (1.05 * (radius + r)) ** 2 for u, v, r in placed):
            placed.append((x, y, radius))
            kind.paint(canvas, len(placed), x, y, radius)
        if len(placed) == count:
            break
    return len(placed)


class SyntheticSplit:
    """Painted scenes by index: images, masks and colours of their ambiguous objects."""

    def __init__(self, seed: int, split: Literal["train", "test"], length: int, size: int) -> None:
        """seed: at least 0. length: number of images. size: side in pixels, 16 to 512."""
        self._key = (seed, ("train", "test").index(split))
        self._length = length
        self._size = size

    def __len__(self) -> int:
        """Number of images."""
        return self._length

    def __getitem__(self, index: int, /) -> Image:
        """The image at this index: uint8 RGB, [size, size, 3]."""
        scene = self.scene(index)
        return scene.colored(self._colors(index, scene.count))

    def objects(self, index: int) -> NDArray[np.uint8]:
        """Number of the ambiguous object at each pixel, counted from 1, [size, size]; 0: none."""
        return self.scene(index).objects

    def choices(self, index: int) -> tuple[int, ...]:
        """Index into AMBIGUOUS_AB of each ambiguous object's colour, object number 1 first."""
        return self._colors(index, self.scene(index).count)

    def scene(self, index: int) -> Scene:
        """The scene at this index, without the colours of ambiguous objects."""
        return paint_scene(self._stream(index, 0), self._size)

    def _colors(self, index: int, count: int) -> tuple[int, ...]:
        return tuple(self._stream(index, 1).integers(len(AMBIGUOUS_AB), size=count).tolist())

    def _stream(self, index: int, purpose: int) -> Stream:
        """Random stream of one image. purpose: 0 for the scene, 1 for the colours of its ambiguous objects."""
        if not 0 <= index < self._length:
            raise IndexError(f"image {index} of {self._length}")
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence([*self._key, index, purpose])))


@dataclass(frozen=True, kw_only=True)
class SyntheticSettings(DataConfig):
    """Painted scenes; no download."""

    train_images: int = 4096
    """Number of training scenes."""
    test_images: int = 512
    """Number of test scenes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("data.train_images", self.train_images, 1, 10**8)
        at_least("data.test_images", self.test_images, 1, 10**8)


class SyntheticSource(ImageSource):
    """Painted scenes, different ones for training and test."""

    Settings = SyntheticSettings
    description = "landscapes painted by a program, with a few objects of ambiguous colour: three, equally likely"
    prepared_once = False

    def open(self) -> Source:
        """Open the scenes, which are painted on access."""
        settings: SyntheticSettings = self.settings
        return Source(
            name="synthetic",
            train=SyntheticSplit(settings.seed, "train", settings.train_images, settings.image_size),
            test=SyntheticSplit(settings.seed, "test", settings.test_images, settings.image_size),
            digest="painted",  # fully determined by the settings
            ambiguous_colors=AMBIGUOUS_AB,
        )
