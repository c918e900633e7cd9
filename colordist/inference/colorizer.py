"""Colour photos of any size: the colours are a network's, at its resolution; the grey is the photo's, at its own."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from colordist.color import AB_SCALE, LUMA, ColorSpace, luma, srgb_to_lab, to_8_bits
from colordist.config import UserError
from colordist.data import decode
from colordist.engine.environment import device_type
from colordist.run import snapshot
from colordist.run.snapshot import Snapshot

BATCH_SIZE = 8
_STRIP = 1 << 18  # pixels coloured at once: what is in between takes some 100 bytes a pixel
_LONGEST = 8  # times the shorter side: what the network sees of a ribbon is squeezed to that, to bound memory


@dataclass(frozen=True)
class Photo:
    """What is kept of a photo: its grey and its alpha, upright. Both are of mode L; None where there is no alpha."""

    grey: Image.Image
    alpha: Image.Image | None

    @property
    def visible(self) -> Image.Image:
        """The grey over white, as networks saw it in training: what is hidden mustn't tint what shows."""
        if self.alpha is None:
            return self.grey
        return Image.composite(self.grey, Image.new("L", self.grey.size, 255), self.alpha)


def read_photo(source: Path | Image.Image) -> Photo:
    """Take what is needed from a file or from an image of any mode. Raises Undecodable if there is nothing to take."""
    image, alpha = decode.decode_with_alpha(source) if isinstance(source, Path) else decode.split_alpha(source)
    grey = Image.new("L", image.size)
    for box in _strips(image.size):
        grey.paste(_image(luma(_tensor(image.crop(box)))), box)
    return Photo(grey, alpha)


class Colorizer:
    """Colour photos with a trained network. Made by `colordist.load`, which has an example.

    The result is sRGB and upright, and of the photo's size; its BT.601 luma is the photo's, within 1 of 255; its alpha
    is the photo's, bit for bit. Other metadata is dropped.
    """

    def __init__(self, trained: Snapshot, resolution: int) -> None:
        self.device = torch.device(device_type())
        self.networks = dict(trained.networks.to(self.device, torch.float32).items())
        self.task = trained.task
        self.space = self.task.color_space
        self.resolution = resolution
        self.multiple = self.task.model.size_multiple
        self.variants = self.task.variants

    def __call__(self, image: Image.Image, variant: int = 0) -> Image.Image:
        """Colour one image of any mode and size: see `colorize`."""
        return self.colorize([image], variant=variant)[0]

    def colorize(
        self, images: Sequence[Image.Image], batch_size: int = BATCH_SIZE, variant: int = 0
    ) -> list[Image.Image]:
        """Colour images of any mode and size; those that look alike in shape go through the network together.

        variant: which of the network's answers, from 0 up to `variants` - 1; without noise it has one. What a number
        stands for is the same for all images.

        Returns images of mode RGB, or RGBA for those with transparency. Raises Undecodable for values of unknown range
        (modes I and F), UserError for a variant that isn't there.
        """
        chunks = [images[start : start + batch_size] for start in range(0, len(images), batch_size)]
        return [picture for chunk in chunks for picture in self.paint([read_photo(image) for image in chunk], variant)]

    def paint(self, photos: Sequence[Photo], variant: int = 0) -> Iterator[Image.Image]:
        """Run the network on all photos, in one batch per shape; then give the pictures one by one, in order."""
        yield from map(self._join, photos, self._colors(photos, variant))

    def input_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The width and height in which the network sees a photo of this width and height."""
        scale = self.resolution / min(size)
        wanted = [min(side * scale, _LONGEST * self.resolution) for side in size]
        # One pixel at the lowest resolution would be nothing after normalisation.
        width, height = (max(round(side / self.multiple), 2) * self.multiple for side in wanted)
        return width, height

    @torch.inference_mode()
    def _colors(self, photos: Sequence[Photo], variant: int) -> list[Tensor]:
        """For each photo a and b over AB_SCALE, [2, h, w], where w x h is `input_size`."""
        shapes: dict[tuple[int, int], list[int]] = {}
        for index, photo in enumerate(photos):
            shapes.setdefault(self.input_size(photo.grey.size), []).append(index)
        colors: dict[int, Tensor] = {}
        for size, members in shapes.items():
            inputs = [_tensor(decode.scale(photos[index].visible, size)) for index in members]
            grey = torch.stack(inputs).to(self.device) / 127.5 - 1
            color = self._answer(grey, variant)
            if self.space.name == "rgb":
                color = srgb_to_lab(self.space.join(grey, color))[:, 1:] / AB_SCALE
            colors |= zip(members, color, strict=True)
        return [colors[index] for index in range(len(photos))]

    def _answer(self, grey: Tensor, variant: int) -> Tensor:
        """The network's colours for grey images."""
        if not 0 <= variant < self.variants:
            raise UserError(
                f"variant is {variant}, but this network has {self.variants}, counted from 0: try variant 0"
            )
        return self.task.sample(self.networks, grey, self.task.variant_noise(variant, grey))

    @torch.inference_mode()
    def _join(self, photo: Photo, color: Tensor) -> Image.Image:
        """Scale colours, [2, h, w], up to a photo's size and join them to its grey."""
        width, height = photo.grey.size
        smaller = (min(color.shape[1], height), min(color.shape[2], width))
        color = F.interpolate(color[None].cpu(), smaller, mode="bilinear", antialias=True).to(self.device)
        picture = Image.new("RGB", photo.grey.size)
        for box in _strips(photo.grey.size):
            grey = _tensor(photo.grey.crop(box))[None].to(self.device) / 255
            rows = _resample(color, -2, range(box[1], box[3]), height)
            rgb = ColorSpace("lab").join(grey * 2 - 1, _resample(rows, -1, range(width), width))
            picture.paste(_image(to_8_bits(keep_luma(rgb, grey))[0].cpu()), box)
        if photo.alpha is not None:
            picture.putalpha(photo.alpha)
        return picture


def load(model: Path, resolution: int | None = None) -> Colorizer:
    """The colorizer of a run folder's latest snapshot, or of a snapshot's folder: see `colordist.load`."""
    trained = snapshot.read(snapshot.find(model))
    if resolution is None:
        resolution = trained.about.get("image_size")
    if not isinstance(resolution, int):
        raise UserError(f"{trained.folder} doesn't name the size it was trained at: give a resolution, as 256")
    if resolution < (least := 2 * trained.task.model.size_multiple):
        raise UserError(f"resolution is {resolution}, but this network needs at least {least}: try {least}")
    return Colorizer(trained, resolution)


def keep_luma(rgb: Tensor, grey: Tensor) -> Tensor:
    """Give colours the luma of grey, and pale those that leave the gamut just until they fit.

    Lab L is not luma: vivid colours joined to a grey's L miss its luma by up to 57 of 255. Hue stays (that of YCbCr).

    rgb: [..., 3, H, W], grey: [..., 1, H, W], both in [0, 1]. Returns rgb in [0, 1].
    """
    chroma = rgb - (rgb * rgb.new_tensor(LUMA).view(3, 1, 1)).sum(-3, keepdim=True)
    room = torch.where(chroma > 0, 1 - grey, grey) / chroma.abs().clamp(min=1e-6)
    return grey + chroma * room.amin(-3, keepdim=True).clamp(max=1)


def _resample(color: Tensor, dim: int, pixels: range, length: int) -> Tensor:
    """Scale dimension -1 or -2 up to a length, bilinearly, and give some of its pixels.

    Unlike with F.interpolate, each pixel is computed on its own: strips make the same picture as the whole.
    """
    last = color.shape[dim] - 1
    centres = torch.arange(pixels.start, pixels.stop, device=color.device) + 0.5
    place = (centres * ((last + 1) / length) - 0.5).clamp(0, last)
    below = place.long()
    share = (place - below).unsqueeze(-1) if dim == -2 else place - below
    above = (below + 1).clamp(max=last)
    return torch.lerp(color.index_select(dim, below), color.index_select(dim, above), share)


def _strips(size: tuple[int, int]) -> Iterator[tuple[int, int, int, int]]:
    """Cut an image into strips of whole rows: left, top, right, bottom."""
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
