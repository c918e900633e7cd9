"""README's first picture: photographs that scikit-image carries, grey above and coloured below.

    python experiments/readme_picture.py photos-small -o docs/pictures/photographs.jpg

astronaut (NASA) and rocket (SpaceX) are in the public domain; chelsea (Stefan van der Walt) and coffee (Rachel
Michetti) are CC0. None of them was used for training.
"""

import argparse
from pathlib import Path

import skimage.data
from PIL import Image

import colordist
from colordist.inference.colorizer import read_photo

PHOTOGRAPHS = ("chelsea", "astronaut", "coffee", "rocket")
HEIGHT, GAP = 240, 4  # pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="run folder, snapshot folder or name of a bundled model")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    options = parser.parse_args()
    photographs = [Image.fromarray(getattr(skimage.data, name)()) for name in PHOTOGRAPHS]
    colored = colordist.load(options.model).colorize(photographs)
    grey = [read_photo(each).grey for each in photographs]
    draw([grey, colored]).save(options.output, quality=92, subsampling=0)


def draw(rows: list[list[Image.Image]]) -> Image.Image:
    """Rows of images, all scaled to one height."""
    scaled = [[each.resize((round(each.width * HEIGHT / each.height), HEIGHT), 1) for each in row] for row in rows]
    width = sum(each.width for each in scaled[0]) + GAP * (len(scaled[0]) - 1)
    sheet = Image.new("RGB", (width, HEIGHT * len(scaled) + GAP * (len(scaled) - 1)), "white")
    for number, row in enumerate(scaled):
        left = 0
        for image in row:
            sheet.paste(image, (left, number * (HEIGHT + GAP)))
            left += image.width + GAP
    return sheet


if __name__ == "__main__":
    main()
