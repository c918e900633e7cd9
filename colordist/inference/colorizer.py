"""Colourize photos of any size: colours from the network at its resolution, grey from the photo at full resolution."""

import copy
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from colordist.color import AB_SCALE, LUMA, ColorSpace, luma, srgb_to_lab, to_8_bits
from colordist.data import decode
from colordist.engine.environment import device_type
from colordist.errors import RunError, UserError
from colordist.files.atomic import out_of_memory, reason
from colordist.files.memory import require_memory
from colordist.inference import upsampling
from colordist.inference.hints import Hint, check_within, hint_channels
from colordist.ranges import real, whole
from colordist.run import snapshot
from colordist.run.snapshot import Snapshot

BATCH_SIZE = 8
MOST_RESOLUTION = 2**14
MOST_SATURATION = 3.0
_loading = threading.Lock()  # filters of warnings and levels of loggers are changed for a moment, for all threads
_STRIP = 1 << 18  # pixels converted at once: intermediate results take about 100 bytes per pixel
_MAX_ASPECT = 8  # of the network's input: longer photos are squeezed, to bound memory


@dataclass(frozen=True)
class Photo:
    """Grey and alpha of a photo, upright, both of mode L; None without alpha."""

    grey: Image.Image
    alpha: Image.Image | None

    @property
    def visible(self) -> Image.Image:
        """Grey composited over white, as in training: transparent pixels mustn't affect the colours of visible ones."""
        if self.alpha is None:
            return self.grey
        return Image.composite(self.grey, Image.new("L", self.grey.size, 255), self.alpha)


def read_photo(source: Path | Image.Image) -> Photo:
    """Read grey and alpha of a file, or of an image of any mode. Raises Undecodable."""
    image, alpha = decode.decode_with_alpha(source) if isinstance(source, Path) else decode.split_alpha(source)
    grey = Image.new("L", image.size)
    for box in _strips(image.size):
        grey.paste(_image(luma(_tensor(image.crop(box)))), box)
    return Photo(grey, alpha)


class Colorizer:
    """Colourizer of photos with a trained network. Built by `colordist.load`, which has an example.

    Output: upright sRGB of the photo's size, with its BT.601 luma (within 1 of 255) and exactly its alpha. Other
    metadata is dropped.
    """

    def __init__(self, trained: Snapshot, resolution: int, upsample: str = "guided", saturation: float = 1.0) -> None:
        self.device = torch.device(device_type())
        self.trained, self.task = trained, trained.task
        self.networks = trained.networks.to(self.device, torch.float32)
        self.space = self.task.color_space
        self.resolution = resolution
        self.upsample = upsample
        self.saturation = saturation
        self.multiple = self.task.model.size_multiple
        self.variants = self.task.variants
        self.takes_hints: bool = self.task.settings.takes_hints

    def __call__(
        self, image: Image.Image, variant: int = 0, seed: int = 0, hints: Sequence[Hint] | None = None
    ) -> Image.Image:
        """Colourize one image of any mode and size: see `colorize`."""
        return self.colorize([image], variant=variant, seed=seed, hints=None if hints is None else [hints])[0]

    def colorize(
        self,
        images: Sequence[Image.Image],
        batch_size: int = BATCH_SIZE,
        variant: int = 0,
        seed: int = 0,
        hints: Sequence[Sequence[Hint]] | None = None,
    ) -> list[Image.Image]:
        """Colourize images of any mode and size, batched by shape.

        variant: index of the sample, below `variants`: a deterministic network has 1, one with latent codes as many as
        codes, a flow any number (None). seed: of a flow's noise, which depends on the image's pixels besides.
        hints: those of each image, for a network that takes some (`takes_hints`), in pixels of the upright image.

        Returns images of mode RGB, or RGBA for those with transparency. Raises UserError, one line with the argument's
        name, for an unknown variant, for hints outside of their image, for what is no image of PIL, and for an image
        without pixels, with values of unknown range (modes I and F), or that can't be decoded.
        """
        given, size = _checked_images(images), whole("batch_size", batch_size, 1)
        if hints is not None and (not isinstance(hints, Sequence) or len(hints) != len(given)):
            count = f"{len(hints)} lists" if isinstance(hints, Sequence) else f"a {type(hints).__name__}"
            raise UserError(f"hints are {count}, but there are {len(given)} images: give a list for each")
        chunks = [slice(start, start + size) for start in range(0, len(given), size)]
        return [
            each
            for part in chunks
            for each in self.paint([*map(_photo_of, given[part])], variant, seed, hints and hints[part])
        ]

    def paint(
        self,
        photos: Sequence[Photo],
        variant: int = 0,
        seed: int = 0,
        hints: Sequence[Sequence[Hint]] | None = None,
    ) -> Iterator[Image.Image]:
        """Run the network on all photos, one batch per shape; then yield the results in order."""
        variant, seed = self._checked_variant(variant), whole("seed", seed, -(2**63), 2**63 - 1)
        yield from map(self._join, photos, self._colors(photos, variant, seed, self._checked_hints(photos, hints)))

    def adjusted(
        self, resolution: int | None = None, upsample: str | None = None, saturation: float | None = None
    ) -> "Colorizer":
        """The same network with other settings, without a copy of its weights. None: as it is.

        Raises UserError as `load` does.
        """
        other = copy.copy(self)
        if resolution is not None:
            other.resolution = _checked_resolution(resolution, self.multiple)
        if upsample is not None:
            upsampling.check_method(upsample)
            other.upsample = upsample
        if saturation is not None:
            other.saturation = _checked_saturation(saturation)
        return other

    def input_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Width and height of the network's input for a photo of this width and height."""
        scale = self.resolution / min(size)
        sides = [min(side * scale, _MAX_ASPECT * self.resolution) for side in size]
        # At least 2 pixels at the lowest resolution: normalisation would zero a single one.
        width, height = (max(round(side / self.multiple), 2) * self.multiple for side in sides)
        return width, height

    @torch.inference_mode()
    def _colors(
        self, photos: Sequence[Photo], variant: int, seed: int, hints: Sequence[Sequence[Hint]] | None
    ) -> list[Tensor]:
        """Per photo: a and b divided by AB_SCALE, [2, h, w], where w x h is `input_size`."""
        shapes: dict[tuple[int, int], list[int]] = {}
        for index, photo in enumerate(photos):
            shapes.setdefault(self.input_size(photo.grey.size), []).append(index)
        colors: dict[int, Tensor] = {}
        for size, members in shapes.items():
            self._require_memory(len(members), size)
            inputs = [_tensor(decode.scale(photos[index].visible, size)) for index in members]
            grey = torch.stack(inputs).to(self.device, torch.float32) / 127.5 - 1
            given = None
            if hints is not None:
                sizes = [photos[index].grey.size for index in members]
                given = hint_channels(self.space, [hints[index] for index in members], sizes, grey)
            with _out_of_memory():
                color = self.trained.sample(grey, self.task.variant_noise(variant, grey, seed), given)
            if self.space.name == "rgb":
                color = srgb_to_lab(self.space.join(grey, color))[:, 1:] / AB_SCALE
            colors |= zip(members, color, strict=True)
        return [colors[index] for index in range(len(photos))]

    def _require_memory(self, count: int, size: tuple[int, int]) -> None:
        """Raise UserError if the network's first features alone, of a batch of images, don't fit on the device."""
        width, height = size
        needed = 4 * count * width * height * self.task.model.full_size_channels
        way_out = "try a smaller batch_size" if count > 1 else f"try a resolution below {self.resolution}"
        what = f"{count} photos of {width}x{height}" if count > 1 else f"resolution is {self.resolution}: its features"
        require_memory(needed, self.device.type, what, way_out)

    def _checked_variant(self, variant: int) -> int:
        """A variant's index. Raises UserError for an unknown one."""
        number = whole("variant", variant, 0, 2**63 - 1)
        if self.variants is not None and number >= self.variants:
            raise UserError(f"variant is {number}, but this network has {self.variants}, counted from 0: try variant 0")
        return number

    def _checked_hints(
        self, photos: Sequence[Photo], hints: Sequence[Sequence[Hint]] | None
    ) -> Sequence[Sequence[Hint]] | None:
        """The hints of some photos; None where there are none. Raises UserError."""
        if hints is None or not any(hints):
            return None
        if not self.takes_hints:
            raise UserError("hints: this network takes none: train one with task.hints true, or leave them out")
        for photo, each in zip(photos, hints, strict=True):
            check_within(each, photo.grey.size)
        return hints

    @torch.inference_mode()
    def _join(self, photo: Photo, color: Tensor) -> Image.Image:
        """Upsample colours, [2, h, w], to a photo's size and join them with its grey."""
        upsample = upsampling.upsampler(self.upsample, color, photo.visible)
        output = Image.new("RGB", photo.grey.size)
        for box in _strips(photo.grey.size):
            grey = _tensor(photo.grey.crop(box))[None].to(self.device, torch.float32) / 255
            chroma = upsample(range(box[1], box[3]))[None] * self.saturation
            rgb = ColorSpace("lab").join(grey * 2 - 1, chroma)
            output.paste(_image(to_8_bits(keep_luma(rgb, grey))[0].cpu()), box)
        if photo.alpha is not None:
            output.putalpha(photo.alpha)
        return output


def load(
    model: Path,
    resolution: int | None = None,
    upsample: str = "guided",
    solver_steps: int | None = None,
    saturation: float = 1.0,
) -> Colorizer:
    """Load a run folder's latest snapshot, or a snapshot folder: see `colordist.load`."""
    upsampling.check_method(upsample)
    saturation = _checked_saturation(saturation)
    if resolution is not None:
        resolution = whole("resolution", resolution, 1, MOST_RESOLUTION)
    with _loading:
        trained = snapshot.read(snapshot.find(model), solver_steps)
    if resolution is None:
        resolution = trained.about.get("image_size")
    if not isinstance(resolution, int):
        raise UserError(f"{trained.folder} doesn't record its training resolution: give a resolution, as 256")
    return Colorizer(trained, _checked_resolution(resolution, trained.task.model.size_multiple), upsample, saturation)


def _checked_resolution(resolution: int, multiple: int) -> int:
    """A resolution that a network of this size multiple supports. Raises UserError for others."""
    number = whole("resolution", resolution, 1, MOST_RESOLUTION)
    if number < (least := 2 * multiple):
        raise UserError(f"resolution is {number}, but this network needs at least {least}: try {least}")
    return number


def _checked_saturation(saturation: float) -> float:
    """A factor of the chroma. Raises UserError outside of its range."""
    return real("saturation", saturation, 0.0, MOST_SATURATION)


@contextmanager
def _out_of_memory() -> Iterator[None]:
    """Raise RunError where memory runs out."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise RunError(f"out of memory ({reason(error)}): try a smaller batch_size or resolution") from None


def _checked_images(images: object) -> list[Image.Image]:
    """Images of PIL. Raises UserError for anything else."""
    if not isinstance(images, Sequence) or isinstance(images, str | bytes):
        raise UserError(f"images is a {type(images).__name__}: give a list of images of PIL")
    for each in images:
        if not isinstance(each, Image.Image):
            way_out = "Image.fromarray(...)" if hasattr(each, "__array__") else "Image.open(...)"
            raise UserError(f"image is a {type(each).__name__}, but must be an image of PIL: try {way_out}")
    return list(images)


def _photo_of(image: Image.Image) -> Photo:
    """Read an image. Raises UserError for one that can't be coloured."""
    try:
        return read_photo(image)
    except decode.Undecodable as error:
        raise UserError(f"image can't be coloured: {error.reason}") from error


def keep_luma(rgb: Tensor, grey: Tensor) -> Tensor:
    """Set the luma of colours to a grey's, and reduce the chroma of those out of gamut until they fit.

    Lab L is not luma: vivid colours with a grey's L differ from its luma by up to 57 of 255. Keeps the YCbCr hue.

    rgb: [..., 3, H, W], grey: [..., 1, H, W], both in [0, 1]. Returns rgb in [0, 1].
    """
    chroma = rgb - (rgb * rgb.new_tensor(LUMA).view(3, 1, 1)).sum(-3, keepdim=True)
    room = torch.where(chroma > 0, 1 - grey, grey) / chroma.abs().clamp(min=1e-6)
    return grey + chroma * room.amin(-3, keepdim=True).clamp(max=1)


def _strips(size: tuple[int, int]) -> Iterator[tuple[int, int, int, int]]:
    """Split an image into strips of whole rows: left, top, right, bottom."""
    width, height = size
    rows = max(_STRIP // width, 1)
    yield from ((0, top, width, min(top + rows, height)) for top in range(0, height, rows))


def _tensor(image: Image.Image) -> Tensor:
    """Mode L or RGB -> uint8 [1 or 3, H, W]."""
    return torch.from_numpy(np.atleast_3d(np.array(image))).permute(2, 0, 1)


def _image(pixels: Tensor) -> Image.Image:
    """uint8 [1 or 3, H, W] -> mode L or RGB."""
    array = pixels.permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)
