"""Image files of many formats to upright 8-bit sRGB, and scaling to squares."""

import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from colordist.config import FileDataConfig
from colordist.errors import UserError
from colordist.files.opening import NotRegular, open_regular

MIN_SIDE = 8  # pixels: smaller images are icons or tracking pixels, not photos

_JPEG, _PNG, _PNM = (".jpg", ".jpeg", ".jpe", ".jfif"), (".png", ".apng"), (".ppm", ".pgm", ".pbm", ".pnm")
_OTHERS = (".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".jp2", ".avif")
EXTENSIONS = frozenset(_JPEG + _PNG + _PNM + _OTHERS)  # lower case; a folder's other files are ignored

# The format is detected from the content, not from the name. Others are refused: PIL would hand an EPS file named .jpg
# to Ghostscript.
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF")
_LONGEST = 8  # shorter sides, of an image that is kept whole
_GAP = 3.0  # reduce cheaply down to this many times the final size; PIL calls 3 "almost indistinguishable" from exact
_loading = threading.Lock()
_PROFILE_MODES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}


def is_image_file(path: str | Path) -> bool:
    """Whether this is a file with an image's extension. Its content is not read."""
    return os.path.splitext(path)[1].lower() in EXTENSIONS and not os.path.isdir(path)


def image_files(folder: Path) -> list[Path]:
    """List the image files below a folder, sorted by name, without hidden ones.

    Raises UserError if a folder can't be listed.
    """

    def refuse(error: OSError) -> None:
        raise UserError(f"no permission to read {error.filename}: change it, or name other folders")

    found: list[Path] = []
    for here, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if name[0] != ".")
        paths = (Path(here, name) for name in sorted(names) if name[0] != ".")
        found += filter(is_image_file, paths)
    return found


class Undecodable(Exception):
    """A file without a usable image. `reason`: a few words, equal for equal faults."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def decode(file: Path | bytes, size: int | None = None) -> Image.Image:
    """Decode one image: upright, sRGB, 8 bits, first frame, transparency composited over white.

    file: path or content.
    size: target side of a later `fit`. A much larger JPEG is decoded at 1/2, 1/4 or 1/8, never below three times this
        size. Default: full resolution.

    Returns an image of mode RGB. Raises Undecodable, and nothing else, for a file without a usable image.
    """
    with _decoding(file) as image:
        if size is not None:
            image.draft(None, (int(size * _GAP), int(size * _GAP)))
        image.load()
        return _to_srgb(_upright(image), image.info.get("icc_profile"))


def stored_size(path: Path) -> tuple[int, int]:
    """Width and height of an image from its header, as stored: a later `decode` may turn it.

    Raises Undecodable for a file without a usable image.
    """
    with _opened(path) as image:
        return image.size


def decode_with_alpha(path: Path) -> tuple[Image.Image, Image.Image | None]:
    """Decode one image at full resolution, with its alpha channel separate: see `split_alpha`.

    Raises Undecodable, and nothing else, for a file without a usable image.
    """
    with _decoding(path) as image:
        image.load()  # here, by several threads at once
        return split_alpha(image)


def split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Convert an image to upright 8-bit sRGB, and separate its alpha channel.

    image: any mode. Returns the colours (mode RGB, as stored even under full transparency) and the alpha (mode L, 0 to
    255; None without one). Raises Undecodable for values of unknown range, an image without pixels, or a damaged one.
    """
    if not min(image.size):
        raise Undecodable("without pixels")
    with _any_error(), _loading:  # by one thread: an image is decoded on first use
        image.load()
    with _any_error():
        return _split_loaded(image)


def _split_loaded(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    profile = image.info.get("icc_profile")
    image = _upright(image)
    if not image.has_transparency_data or image.mode.startswith("I"):  # 16-bit greys: the transparent level is dropped
        return _to_srgb(image, profile), None
    if image.mode == "La":  # PIL converts La to LA only
        image = image.convert("LA")
    rgba = image.convert("RGBA")
    opaque = rgba.convert("L" if image.mode in ("L", "LA") else "RGB")
    return _to_srgb(opaque, profile), rgba.getchannel("A")


def fit(image: Image.Image, size: int, shorter: int | None = None) -> NDArray[np.uint8]:
    """Scale the shorter side to `shorter` (default: `size`) and crop the centre: RGB image -> uint8 [size, size, 3].

    Lanczos with antialiasing for downscaling, bicubic for upscaling; unchanged pixels at the same size.
    """
    side = min(image.size) * size / (shorter or size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return np.asarray(scale(image, (size, size), (left, top, left + side, top + side)))


def fit_shorter(image: Image.Image, shorter: int) -> NDArray[np.uint8]:
    """Scale the shorter side as `fit` does, and keep the whole image: RGB image -> uint8 [H, W, 3].

    Of an image longer than 8:1, which might fill the memory, the middle is kept.
    """
    width, height = (min(each, _LONGEST * min(image.size)) for each in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    size = whole_size(*image.size, shorter)
    return np.asarray(scale(image, size, (left, top, left + width, top + height)))


def whole_size(width: int, height: int, shorter: int) -> tuple[int, int]:
    """Width and height that `fit_shorter` scales an image to."""
    side = min(width, height)
    across, down = (round(min(each, _LONGEST * side) * shorter / side) for each in (width, height))
    return across, down


def scale(
    image: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float] | None = None
) -> Image.Image:
    """Scale an image, or a box in it (left, top, right, bottom), to (width, height), with the filters of `fit`."""
    left, top, right, bottom = box or (0, 0, *image.size)
    grows = min(right - left, bottom - top) < min(size)
    resample = Image.Resampling.BICUBIC if grows else Image.Resampling.LANCZOS
    return image.resize(size, resample, box=(left, top, right, bottom), reducing_gap=_GAP)


@dataclass(frozen=True)
class Scaling:
    """Scaling of photographs to training or test images."""

    size: int
    """Side of the crops in pixels."""
    resize: int | None = None
    """Shorter side after scaling, in pixels: at least `size`, the default."""
    whole: bool = False
    """Keep the whole image; else crop the centre."""

    @classmethod
    def of(cls, settings: FileDataConfig) -> "Scaling":
        """That of training images."""
        return cls(settings.image_size, settings.resize, whole=settings.crop == "random")

    @property
    def shorter(self) -> int:
        """Shorter side after scaling."""
        return self.resize or self.size

    @property
    def of_test_images(self) -> "Scaling":
        """That of test images, which are always cropped at the centre."""
        return replace(self, whole=False)

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:
        """Scale an RGB image to uint8 [H, W, 3]."""
        return fit_shorter(image, self.shorter) if self.whole else fit(image, self.size, self.shorter)


def over_white(image: Image.Image) -> Image.Image:
    """Composite over white: any mode with transparency -> RGB."""
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


@contextmanager
def _decoding(file: Path | bytes) -> Iterator[Image.Image]:
    """Open a file without decoding it. Any error inside the context becomes Undecodable."""
    with _opened(file) as image:
        if min(image.size) < MIN_SIDE:
            raise Undecodable(f"smaller than {MIN_SIDE} pixels")
        with _any_error():
            yield image


@contextmanager
def _any_error() -> Iterator[None]:
    """Turn errors into Undecodable: decoders raise nearly anything on damaged files."""
    try:
        yield
    except Undecodable:
        raise
    except Exception as error:
        raise Undecodable("truncated or damaged") from error


@cache
def _formats() -> tuple[str, ...]:
    """Formats that this build of PIL can open."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


@contextmanager
def _opened(file: Path | bytes) -> Iterator[Image.Image]:
    """Open a file without decoding it. Raises Undecodable for one without an image."""
    with _content(file) as content, _image_in(content) as image:
        yield image


def _content(file: Path | bytes) -> BinaryIO:
    if not isinstance(file, Path):
        return io.BytesIO(file)
    try:
        return open_regular(file)
    except (NotRegular, IsADirectoryError):
        raise Undecodable("not a regular file") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise Undecodable("unreadable") from error


def _image_in(content: BinaryIO) -> Image.Image:
    if not content.seek(0, os.SEEK_END):
        raise Undecodable("empty file")
    content.seek(0)
    try:
        return Image.open(content, formats=_formats())
    except Image.DecompressionBombError as error:
        raise Undecodable("too many pixels") from error
    except UnidentifiedImageError as error:
        raise Undecodable("not a readable image") from error
    except OSError as error:
        raise Undecodable("unreadable" if error.errno else "not a readable image") from error
    except Exception as error:  # see _any_error
        raise Undecodable("truncated or damaged") from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # only the EXIF block is damaged
        return image


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_8_bits(image)
    if image.has_transparency_data:
        image = over_white(image)
    elif image.mode not in _PROFILE_MODES:
        image = image.convert("RGB")
    return (_apply_profile(image, profile) if profile else image).convert("RGB")


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Scale 16- or 32-bit greys to 8 bits; PIL's own conversion clips at 255."""
    values = np.asarray(image, dtype=np.float64)
    low, high = values.min(), values.max()
    if image.mode == "F" and low >= 0 and high <= 255:
        scaled = values * 255 if high <= 1 else values
    elif image.mode != "F" and low >= 0 and high <= 65535:
        scaled = values / 257
    else:  # including NaN
        raise Undecodable("values of unknown range")
    return Image.fromarray(np.rint(scaled).astype(np.uint8))


def _apply_profile(image: Image.Image, profile: bytes) -> Image.Image:
    """Convert from the file's ICC profile to sRGB; a broken profile, or one for other channels, is ignored."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(source):
            return image
        if source.profile.xcolor_space.strip() != _PROFILE_MODES[image.mode]:
            return image
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError):
        return image
    return converted or image
