"""From an image file, however odd, to upright 8-bit sRGB; and from there to a square of the size asked for."""

import io
import stat
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

MIN_SIDE = 8  # pixels: a smaller image is an icon or a tracking pixel, not a photo

# A file is opened by its content, whatever its name says. Anything outside this list stays closed: PIL would hand an
# EPS file named .jpg to Ghostscript.
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF")
_GAP = 3.0  # reduce cheaply down to this many times the final size; PIL calls 3 "almost indistinguishable" from exact
_PROFILE_MODES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}


class Undecodable(Exception):
    """This file gives no image that can be used; `reason` says why in a few words that many files may share."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def decode(path: Path, size: int | None = None) -> Image.Image:
    """Read one image: upright, sRGB, 8 bits, first frame, transparency over white.

    size: the side that `fit` will be asked for. A much larger JPEG is then decoded at 1/2, 1/4 or 1/8, never below
        three times this size; by default an image keeps its own resolution.

    Returns an image of mode RGB. Raises Undecodable, and nothing else, if there is none to be had.
    """
    with _open(path) as image:
        if min(image.size) < MIN_SIDE:
            raise Undecodable(f"smaller than {MIN_SIDE} pixels")
        try:
            if size is not None:
                image.draft(None, (int(size * _GAP), int(size * _GAP)))
            image.load()
            return _to_srgb(_upright(image), image.info.get("icc_profile"))
        except Undecodable:
            raise
        except Exception as error:  # a damaged file makes the decoders raise nearly anything
            raise Undecodable("truncated or damaged") from error


def fit(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """Scale the shorter side to `size` and cut out the centre: RGB image in, uint8 [size, size, 3] out.

    Lanczos with antialiasing where the image shrinks, bicubic where it grows; unchanged pixels where it does neither.
    """
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.resize(
        (size, size),
        Image.Resampling.BICUBIC if side < size else Image.Resampling.LANCZOS,
        box=(left, top, left + side, top + side),
        reducing_gap=_GAP,
    )
    return np.asarray(square)


@cache
def _formats() -> tuple[str, ...]:
    """The formats that this build of PIL can open."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _open(path: Path) -> Image.Image:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a named pipe would wait for ever
            raise Undecodable("not a regular file")
        if status.st_size == 0:
            raise Undecodable("empty file")
        return Image.open(path, formats=_formats())
    except Undecodable:
        raise
    except Image.DecompressionBombError as error:
        raise Undecodable("too many pixels") from error
    except UnidentifiedImageError as error:
        raise Undecodable("not a readable image") from error
    except OSError as error:
        raise Undecodable("unreadable" if error.errno else "not a readable image") from error
    except Exception as error:  # see decode
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
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
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
