"""Images of every kind that a user may bring, made here: what they show, and those that can't be decoded."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image, features

from colordist.data.decode import MIN_SIDE

Color = tuple[int, int, int]
Corners = tuple[Color, Color, Color, Color]  # top left, top right, bottom left, bottom right

RED, GREEN, BLUE, YELLOW, WHITE = (200, 40, 40), (40, 180, 40), (40, 40, 200), (220, 220, 40), (255, 255, 255)
FLAG: Corners = (RED, GREEN, BLUE, YELLOW)
WIDTH, HEIGHT = 48, 32
DAMAGED, NO_IMAGE, TOO_SMALL = "truncated or damaged", "not a readable image", f"smaller than {MIN_SIDE} pixels"


def paint(corners: tuple[object, ...], mode: str = "RGB") -> Image.Image:
    """Four rectangles, so that any turn, mirroring or wrong channel shows."""
    image = Image.new(mode, (WIDTH, HEIGHT))
    half = (WIDTH // 2, HEIGHT // 2)
    for color, place in zip(corners, [(0, 0), (half[0], 0), (0, half[1]), half], strict=True):
        image.paste(color, (*place, place[0] + half[0], place[1] + half[1]))  # type: ignore[arg-type]
    return image


def grey(*levels: int) -> Corners:
    first, second, third, fourth = ((level, level, level) for level in levels)
    return first, second, third, fourth


def encode(image: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def flag(file_format: str, mode: str = "RGB", **options: object) -> bytes:
    image = paint(FLAG)
    return encode(image.quantize(8) if mode == "P" else image.convert(mode), file_format, **options)


def png(width: int, height: int, depth: int, kind: int, rows: bytes, *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG of kinds that PIL does not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def png16(kind: int, corners: tuple[tuple[int, ...], ...], *extra: tuple[bytes, bytes]) -> bytes:
    """16 bits per channel: 2 is RGB, 0 is grey, 4 is grey with alpha."""
    top, bottom = (
        b"\0" + b"".join(struct.pack(f">{len(color)}H", *color) * (WIDTH // 2) for color in pair)
        for pair in (corners[:2], corners[2:])
    )
    return png(WIDTH, HEIGHT, 16, kind, top * (HEIGHT // 2) + bottom * (HEIGHT // 2), *extra)


def profile(description: str, space: bytes = b"RGB ", *, swapped: bool = False) -> bytes:
    """A small ICC profile with sRGB's primaries, red and blue swapped on demand, and gamma 2.2."""

    def fixed(*numbers: float) -> bytes:
        return b"".join(struct.pack(">i", round(number * 65536)) for number in numbers)

    def xyz(*numbers: float) -> bytes:
        return b"XYZ \0\0\0\0" + fixed(*numbers)

    gamma = b"curv\0\0\0\0" + struct.pack(">IHxx", 1, round(2.2 * 256))
    text = description.encode() + b"\0"
    red, blue = xyz(0.4361, 0.2225, 0.0139), xyz(0.1431, 0.0606, 0.7141)
    if swapped:
        red, blue = blue, red
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78 + -len(text) % 4),
        b"wtpt": xyz(0.9642, 1.0, 0.8249),
        b"cprt": b"text\0\0\0\0none\0\0\0\0",
    }
    if space == b"GRAY":
        tags[b"kTRC"] = b"curv\0\0\0\0" + struct.pack(">IHxx", 1, 256)  # linear
    else:
        tags |= {b"rXYZ": red, b"gXYZ": xyz(0.3851, 0.7169, 0.0971), b"bXYZ": blue}
        tags |= {b"rTRC": gamma, b"gTRC": gamma, b"bTRC": gamma}
    table, data, offset = b"", b"", 132 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", offset + len(data), len(content))
        data += content
    header = struct.pack(
        ">I4sI4s4s4s12x4s28x", offset + len(data), b"none", 0x02100000, b"mntr", space, b"XYZ ", b"acsp"
    )
    header += fixed(0.9642, 1.0, 0.8249)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


# Stored as the camera holds it; EXIF says how to turn it upright.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def turned(file_format: str, orientation: int, **options: object) -> bytes:
    return encode(paint(FLAG).transpose(TURNS[orientation]), file_format, exif=exif(orientation), **options)


def second_frame() -> dict[str, Any]:
    return {"save_all": True, "append_images": [Image.new("RGB", (WIDTH, HEIGHT), "black")]}


def floats(*levels: float) -> bytes:
    return encode(paint(levels, "F"), "TIFF")


def transparent_gif() -> bytes:
    image = paint((0, 1, 2, 3), "P")
    image.putpalette([channel for color in FLAG for channel in color])
    return encode(image, "GIF", transparency=3)


SEE_THROUGH = paint(((*RED, 255), (*GREEN, 255), (*BLUE, 0), (0, 0, 0, 127)), "RGBA")
OVER_WHITE: Corners = (RED, GREEN, WHITE, (128, 128, 128))
GREYS = paint((0, 80, 160, 240), "L")
JPEG, PNG = flag("JPEG", quality=90), flag("PNG")
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
FLAG_GREY = grey(88, 122, 58, 199)  # BT.601 luma of the flag's colours
RED_BLUE_SWAPPED: Corners = ((40, 40, 200), GREEN, (200, 40, 40), (40, 220, 220))

USABLE: dict[str, tuple[bytes, Corners]] = {
    "baseline.jpg": (JPEG, FLAG),
    "progressive.jpg": (flag("JPEG", progressive=True, quality=90), FLAG),
    "full_chroma.jpeg": (flag("JPEG", subsampling=0, quality=90), FLAG),
    "poor.jpg": (flag("JPEG", quality=15), FLAG),
    "restart_markers.jpg": (flag("JPEG", restart_marker_rows=1, quality=90), FLAG),
    "grey.jpg": (flag("JPEG", "L", quality=90), FLAG_GREY),
    "cmyk.jpg": (flag("JPEG", "CMYK", quality=90), FLAG),
    "UPPER.JPG": (JPEG, FLAG),
    "no_dots_no_case.JPeG": (JPEG, FLAG),
    "photo.edited.v2.jpg": (JPEG, FLAG),
    "schöne Pferde 馬 🐎.jpg": (JPEG, FLAG),
    "line\nbreak.jpg": (JPEG, FLAG),
    "trailing_garbage.jpg": (JPEG + b"garbage" * 100, FLAG),
    "really_a_png.jpg": (PNG, FLAG),
    "really_a_jpeg.png": (JPEG, FLAG),
    "stereo.jpg": (flag("MPO", **second_frame()), FLAG),
    "orientation_0.jpg": (flag("JPEG", exif=exif(0), quality=90), FLAG),
    "orientation_1.jpg": (flag("JPEG", exif=exif(1), quality=90), FLAG),
    **{f"orientation_{turn}.jpg": (turned("JPEG", turn, quality=90), FLAG) for turn in TURNS},
    "orientation_99.jpg": (flag("JPEG", exif=exif(99), quality=90), FLAG),
    "exif_garbage.jpg": (flag("JPEG", exif=b"Exif\0\0MM\0*garbage" * 9, quality=90), FLAG),
    "exif_cut.jpg": (flag("JPEG", exif=exif(6)[:-8], quality=90), FLAG),
    "srgb_profile.jpg": (flag("JPEG", icc_profile=profile("sRGB of ours"), quality=90), FLAG),
    "profile_near_srgb.jpg": (flag("JPEG", icc_profile=profile("Monitor"), quality=90), FLAG),
    "profile_swapped.jpg": (flag("JPEG", icc_profile=profile("Odd", swapped=True), quality=90), RED_BLUE_SWAPPED),
    "profile_swapped.png": (flag("PNG", icc_profile=profile("Odd", swapped=True)), RED_BLUE_SWAPPED),
    "profile_swapped_palette.png": (flag("PNG", "P", icc_profile=profile("Odd", swapped=True)), RED_BLUE_SWAPPED),
    "profile_swapped_alpha.png": (flag("PNG", "RGBA", icc_profile=profile("Odd", swapped=True)), RED_BLUE_SWAPPED),
    "profile_swapped.webp": (flag("WEBP", lossless=True, icc_profile=profile("Odd", swapped=True)), RED_BLUE_SWAPPED),
    "profile_swapped.tif": (flag("TIFF", icc_profile=profile("Odd", swapped=True)), RED_BLUE_SWAPPED),
    "profile_garbage.jpg": (flag("JPEG", icc_profile=b"garbage" * 30, quality=90), FLAG),
    "profile_cut.png": (flag("PNG", icc_profile=profile("Odd", swapped=True)[:200]), FLAG),
    "profile_of_rgb_in_grey.png": (encode(GREYS, "PNG", icc_profile=profile("Odd")), grey(0, 80, 160, 240)),
    "profile_of_rgb_in_cmyk.jpg": (flag("JPEG", "CMYK", icc_profile=profile("Odd", swapped=True), quality=90), FLAG),
    "profile_linear_grey.png": (encode(GREYS, "PNG", icc_profile=profile("Grey", b"GRAY")), grey(0, 151, 207, 248)),
    "plain.png": (PNG, FLAG),
    "alpha.png": (encode(SEE_THROUGH, "PNG"), OVER_WHITE),
    "alpha.webp": (encode(SEE_THROUGH, "WEBP", lossless=True), OVER_WHITE),
    "alpha.tif": (encode(SEE_THROUGH, "TIFF"), OVER_WHITE),
    "grey.png": (encode(GREYS, "PNG"), grey(0, 80, 160, 240)),
    "grey_alpha.png": (
        encode(paint(((0, 255), (80, 255), (160, 0), (0, 127)), "LA"), "PNG"),
        grey(0, 80, 255, 128),
    ),
    "palette.png": (flag("PNG", "P"), FLAG),
    "palette_alpha.tif": (encode(paint(FLAG).quantize(8).convert("PA"), "TIFF"), FLAG),
    "palette_transparency.png": (
        encode(Image.open(io.BytesIO(transparent_gif())), "PNG", transparency=3),
        (RED, GREEN, BLUE, WHITE),
    ),
    "rgb_transparency.png": (flag("PNG", transparency=BLUE), (RED, GREEN, WHITE, YELLOW)),
    "grey_transparency.png": (encode(GREYS, "PNG", transparency=160), grey(0, 80, 255, 240)),
    "one_bit.png": (encode(paint((0, 1, 1, 0), "1"), "PNG"), grey(0, 255, 255, 0)),
    "deep_grey.png": (encode(paint((0, 20560, 41120, 61680), "I;16"), "PNG"), grey(0, 80, 160, 240)),
    "deep_grey_cut_out.png": (
        png16(0, ((0,), (20560,), (41120,), (61680,)), (b"tRNS", b"\0\0")),
        grey(0, 80, 160, 240),
    ),
    "deep_grey_alpha.png": (
        png16(4, ((0, 65535), (20560, 65535), (41120, 0), (0, 32640))),
        grey(0, 80, 255, 128),
    ),
    "deep_rgb.png": (png16(2, tuple(tuple(257 * channel for channel in color) for color in FLAG)), FLAG),
    "orientation_6.png": (turned("PNG", 6), FLAG),
    "animated.png": (flag("PNG", **second_frame()), FLAG),
    "min_side.png": (encode(paint(FLAG).resize((MIN_SIDE, MIN_SIDE), 0), "PNG"), FLAG),
    "plain.gif": (flag("GIF"), FLAG),
    "transparent.gif": (transparent_gif(), (RED, GREEN, BLUE, WHITE)),
    "animated.gif": (flag("GIF", duration=40, **second_frame()), FLAG),
    "lossless.webp": (flag("WEBP", lossless=True), FLAG),
    "lossy.webp": (flag("WEBP", quality=90), FLAG),
    "animated.webp": (flag("WEBP", lossless=True, **second_frame()), FLAG),
    "orientation_8.webp": (turned("WEBP", 8, lossless=True), FLAG),
    "plain.tif": (flag("TIFF"), FLAG),
    "lzw.tiff": (flag("TIFF", compression="tiff_lzw"), FLAG),
    "deflate.tif": (flag("TIFF", compression="tiff_adobe_deflate"), FLAG),
    "jpeg_inside.tif": (flag("TIFF", compression="jpeg", quality=90), FLAG),
    "pages.tif": (flag("TIFF", **second_frame()), FLAG),
    "palette.tif": (flag("TIFF", "P"), FLAG),
    "cmyk.tif": (flag("TIFF", "CMYK"), FLAG),
    "lab.tif": (
        encode(paint(((255, 128, 128), (128, 128, 128), (0, 128, 128), (255, 128, 128)), "LAB"), "TIFF"),
        grey(255, 119, 0, 255),
    ),
    "one_bit.tif": (encode(paint((0, 1, 1, 0), "1"), "TIFF", compression="group4"), grey(0, 255, 255, 0)),
    "deep_grey.tif": (encode(paint((0, 20560, 41120, 61680), "I;16"), "TIFF"), grey(0, 80, 160, 240)),
    "deep_grey_big_endian.tif": (encode(paint((0, 20560, 41120, 61680), "I;16B"), "TIFF"), grey(0, 80, 160, 240)),
    "int32.tif": (encode(paint((0, 20560, 41120, 61680), "I"), "TIFF"), grey(0, 80, 160, 240)),
    "float_to_1.tif": (floats(0, 0.25, 0.5, 1), grey(0, 64, 128, 255)),
    "float_to_255.tif": (floats(0, 80, 160, 255), grey(0, 80, 160, 255)),
    "orientation_6.tif": (turned("TIFF", 6), FLAG),
    "orientation_3_deep.tif": (
        encode(paint((61680, 41120, 20560, 0), "I;16"), "TIFF", exif=exif(3)),
        grey(0, 80, 160, 240),
    ),
    "plain.bmp": (flag("BMP"), FLAG),
    "palette.bmp": (flag("BMP", "P"), FLAG),
    "grey.bmp": (encode(GREYS, "BMP"), grey(0, 80, 160, 240)),
    "one_bit.bmp": (encode(paint((0, 1, 1, 0), "1"), "BMP"), grey(0, 255, 255, 0)),
    "no_header.dib": (flag("DIB"), FLAG),
    "plain.ppm": (flag("PPM"), FLAG),
    "grey.pgm": (encode(GREYS, "PPM"), grey(0, 80, 160, 240)),
    "deep.pgm": (encode(paint((0, 20560, 41120, 61680), "I;16"), "PPM"), grey(0, 80, 160, 240)),
    "one_bit.pbm": (encode(paint((0, 1, 1, 0), "1"), "PPM"), grey(0, 255, 255, 0)),
}
if features.check("jpg_2000"):
    USABLE["plain.jp2"] = (flag("JPEG2000"), FLAG)
if ".avif" in Image.registered_extensions():
    USABLE["plain.avif"] = (flag("AVIF", quality=90), FLAG)

USELESS: dict[str, tuple[bytes, str]] = {
    "empty.jpg": (b"", "empty file"),
    "one_byte.png": (b"\x89", NO_IMAGE),
    "text.jpg": (b"I am not a photo. " * 50, NO_IMAGE),
    "page.jpg": (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", NO_IMAGE),
    "drawing.png": (b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', NO_IMAGE),
    "document.jpg": (b"%PDF-1.7\n" + bytes(500), NO_IMAGE),
    "program_for_ghostscript.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\nshowpage\n", NO_IMAGE),
    "zeros.jpg": (bytes(5000), NO_IMAGE),
    "half.jpg": (encode(NOISE, "JPEG")[:1500], DAMAGED),
    "half_progressive.jpg": (encode(NOISE, "JPEG", progressive=True)[:1500], DAMAGED),
    "header_only.jpg": (JPEG[:20], NO_IMAGE),
    "half.png": (encode(NOISE, "PNG")[:6000], DAMAGED),
    "header_only.png": (PNG[:33], NO_IMAGE),
    "checksum.png": (PNG.replace(b"IDAT", b"IDAT\xff", 1), DAMAGED),
    "half.gif": (encode(NOISE, "GIF")[:2000], DAMAGED),
    "half.webp": (encode(NOISE, "WEBP", lossless=True)[:5000], NO_IMAGE),
    "half.tif": (encode(NOISE, "TIFF")[:2000], DAMAGED),
    "half.bmp": (encode(NOISE, "BMP")[:2000], DAMAGED),
    "half.ppm": (encode(NOISE, "PPM")[:2000], DAMAGED),
    "bomb.png": (png(60_000, 60_000, 8, 2, b""), "too many pixels"),
    "bomb.ppm": (b"P6 65535 65535 255\n" + bytes(99), "too many pixels"),
    "bomb_in_text.png": (png(16, 16, 8, 2, b"", (b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 24)))), DAMAGED),
    "tracking_pixel.gif": (encode(Image.new("RGB", (1, 1)), "GIF"), TOO_SMALL),
    "sliver.png": (encode(Image.new("RGB", (500, MIN_SIDE - 1)), "PNG"), TOO_SMALL),
    "tiny.jpg": (encode(Image.new("RGB", (4, 4)), "JPEG"), TOO_SMALL),
    "float_nan.tif": (floats(0, 1, float("nan"), 1), "values of unknown range"),
    "float_negative.tif": (floats(-1, 1, 0, 1), "values of unknown range"),
    "float_large.tif": (floats(0, 1e6, 0, 1), "values of unknown range"),
    "int32_large.tif": (encode(paint((0, 1 << 20, 0, 1), "I"), "TIFF"), "values of unknown range"),
    "int32_negative.tif": (encode(paint((0, -5, 0, 1), "I"), "TIFF"), "values of unknown range"),
}
