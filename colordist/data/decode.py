"""From an image file, however odd, to upright 8-bit sRGB; and from there to a square of the size asked for."""

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from colordist.config import UserError

MIN_SIDE = 8  # pixels: a smaller image is an icon or a tracking pixel, not a photo

_JPEG, _PNG, _PNM = (".jpg", ".jpeg", ".jpe", ".jfif"), (".png", ".apng"), (".ppm", ".pgm", ".pbm", ".pnm")
_OTHERS = (".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".jp2", ".avif")
EXTENSIONS = frozenset(_JPEG + _PNG + _PNM + _OTHERS)  # lower case; what a file in a folder must have to be tried

# A file is opened by its content, whatever its name says. Anything outside this list stays closed: PIL would hand an
# EPS file named .jpg to Ghostscript.
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF")
_GAP = 3.0  # reduce cheaply down to this many times the final size; PIL calls 3 "almost indistinguishable" from exact
_PROFILE_MODES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}


def kept_as_it_is(content: bytes) -> str | None:
    """The extension of an image file that every build of PIL decodes, and other programs too; None for any other."""
    if content.startswith(b"\xff\xd8\xff"):
        return "jpg"
    return "png" if content.startswith(b"\x89PNG\r\n\x1a\n") else None


def is_image_file(path: str | Path) -> bool:
    """Whether this is no folder, and its name promises an image; what is in it, `decode` will tell."""
    return os.path.splitext(path)[1].lower() in EXTENSIONS and not os.path.isdir(path)


def image_files(folder: Path) -> list[Path]:
    """The image files below a folder, in order of their names, without the hidden ones.

    Raises UserError where a folder can't be listed.
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
    """This file gives no image that can be used; `reason` says why in a few words that many files may share."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def decode(file: Path | bytes, size: int | None = None) -> Image.Image:
    """Read one image: upright, sRGB, 8 bits, first frame, transparency over white.

    file: where it lies, or what is in it.
    size: the side that `fit` will be asked for. A much larger JPEG is then decoded at 1/2, 1/4 or 1/8, never below
        three times this size; by default an image keeps its own resolution.

    Returns an image of mode RGB. Raises Undecodable, and nothing else, if there is none to be had.
    """
    with _decoding(file) as image:
        if size is not None:
            image.draft(None, (int(size * _GAP), int(size * _GAP)))
        image.load()
        return _to_srgb(_upright(image), image.info.get("icc_profile"))


def decode_with_alpha(path: Path) -> tuple[Image.Image, Image.Image | None]:
    """Like `decode` at its own resolution, but the transparency stays apart: see `split_alpha`.

    Raises Undecodable, and nothing else, if there is no image to be had.
    """
    with _decoding(path) as image:
        return split_alpha(image)


def split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Make an image upright, sRGB and 8 bits, and take its alpha apart.

    image: any mode. Returns the colours (mode RGB; where nothing is opaque, whatever the file hides there) and the
    alpha (mode L, 0 to 255), None where there is none. Raises Undecodable for values of unknown range.
    """
    image.load()
    profile = image.info.get("icc_profile")
    image = _upright(image)
    if not image.has_transparency_data or image.mode.startswith("I"):  # deep greys lose their one transparent level
        return _to_srgb(image, profile), None
    if image.mode == "La":  # which PIL converts to nothing but LA
        image = image.convert("LA")
    whole = image.convert("RGBA")
    opaque = whole.convert("L" if image.mode in ("L", "LA") else "RGB")
    return _to_srgb(opaque, profile), whole.getchannel("A")


def fit(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """Scale the shorter side to `size` and cut out the centre: RGB image in, uint8 [size, size, 3] out.

    Lanczos with antialiasing where the image shrinks, bicubic where it grows; unchanged pixels where it does neither.
    """
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return np.asarray(scale(image, (size, size), (left, top, left + side, top + side)))


def scale(image: Image.Image, size: tuple[int, int], box: tuple[int, int, int, int] | None = None) -> Image.Image:
    """Scale an image, or a box in it (left, top, right, bottom), to a width and height: see `fit`."""
    left, top, right, bottom = box or (0, 0, *image.size)
    grows = min(right - left, bottom - top) < min(size)
    how = Image.Resampling.BICUBIC if grows else Image.Resampling.LANCZOS
    return image.resize(size, how, box=(left, top, right, bottom), reducing_gap=_GAP)


def over_white(image: Image.Image) -> Image.Image:
    """Put what is transparent over white: any mode with transparency -> RGB."""
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


@contextmanager
def _decoding(file: Path | bytes) -> Iterator[Image.Image]:
    """An open file, not yet decoded. Whatever goes wrong inside comes out as Undecodable."""
    with _open(file) as image:
        if min(image.size) < MIN_SIDE:
            raise Undecodable(f"smaller than {MIN_SIDE} pixels")
        try:
            yield image
        except Undecodable:
            raise
        except Exception as error:  # a damaged file makes the decoders raise nearly anything
            raise Undecodable("truncated or damaged") from error


@cache
def _formats() -> tuple[str, ...]:
    """The formats that this build of PIL can open."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _open(file: Path | bytes) -> Image.Image:
    try:
        status = file.stat() if isinstance(file, Path) else None
        if status and not stat.S_ISREG(status.st_mode):  # opening a named pipe would wait for ever
            raise Undecodable("not a regular file")
        if not (status.st_size if status else file):
            raise Undecodable("empty file")
        return Image.open(file if isinstance(file, Path) else io.BytesIO(file), formats=_formats())
    except Undecodable:
        raise
    except Image.DecompressionBombError as error:
        raise Undecodable("too many pixels") from error
    except UnidentifiedImageError as error:
        raise Undecodable("not a readable image") from error
    except OSError as error:
        raise Undecodable("unreadable" if error.errno else "not a readable image") from error
    except Exception as error:  # see _decoding
        raise Undecodable("truncated or damaged") from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # the EXIF block is damaged, the picture is not
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
    """Scale deep greys to 8 bits; PIL's own conversion cuts everything above 255 off."""
    values = np.asarray(image, dtype=np.float64)
    low, high = values.min(), values.max()
    if image.mode == "F" and low >= 0 and high <= 255:
        scaled = values * 255 if high <= 1 else values
    elif image.mode != "F" and low >= 0 and high <= 65535:
        scaled = values / 257
    else:  # NaN ends here too
        raise Undecodable("values of unknown range")
    return Image.fromarray(np.rint(scaled).astype(np.uint8))


def _apply_profile(image: Image.Image, profile: bytes) -> Image.Image:
    """Convert from the file's colour profile to sRGB; a broken profile, or one for other channels, is ignored."""
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
