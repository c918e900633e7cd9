"""From photo files to picture files: which to colour, under which name, and nothing lost on the way."""

import glob
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from PIL import Image

from colordist.config import UserError
from colordist.data import decode
from colordist.files.atomic import replacing
from colordist.inference.colorizer import Colorizer, Photo, read_photo

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".webp": "WEBP"}


@dataclass(frozen=True)
class Job:
    """A photo, and the file that its picture will be."""

    photo: Path
    target: Path
    variants: int | None = None
    """How many pictures, each with its number behind the file's stem; None: one."""

    @property
    def targets(self) -> list[Path]:
        """The file of each picture."""
        if self.variants is None:
            return [self.target]
        return [self.target.with_stem(f"{self.target.stem}-{number}") for number in range(1, self.variants + 1)]


def find_photos(arguments: Sequence[str], out: Path, suffix: str, variants: int | None = None) -> list[Job]:
    """What to colour: files, image files below folders, and those that a pattern such as ``'photos/**/*.jpg'`` matches.

    A picture keeps its place below the folder, or below the pattern's part without wildcards. Earlier pictures, in an
    `out` inside that, aren't coloured again. Raises UserError for an argument that finds nothing.
    """
    jobs: dict[Job, None] = {}  # a set that keeps the order: the same file may be named twice
    results = out.resolve()
    for argument in map(os.path.expanduser, arguments):
        if os.path.isdir(argument):
            root, paths = Path(argument), decode.image_files(Path(argument))
        elif os.path.lexists(argument):
            root, paths = Path(argument).parent, [Path(argument)]
        else:
            root = Path(*takewhile(lambda part: part == glob.escape(part), Path(argument).parts))
            paths = [Path(path) for path in sorted(glob.glob(argument, recursive=True)) if decode.is_image_file(path)]
        if root.resolve() in results.parents:
            paths = [path for path in paths if not path.parent.resolve().is_relative_to(results)]
        if not paths:
            raise UserError(f"no photo found at {argument}: give image files, folders of them or quoted patterns")
        targets = [out / path.relative_to(root).with_name(path.stem + suffix) for path in paths]
        jobs |= dict.fromkeys(Job(path, target, variants) for path, target in zip(paths, targets, strict=True))
    return list(jobs)


def obstacles(jobs: Sequence[Job], overwrite: bool) -> dict[Job, str]:
    """The jobs that mustn't be done, each with the reason and the way out: no file is lost without a word."""
    photos = {job.photo.resolve() for job in jobs}
    first: dict[Path, Job] = {}
    reasons: dict[Job, str] = {}
    pictures = [(job, target) for job in jobs for target in job.targets]
    for job, target in pictures:
        if (other := first.setdefault(target, job)) is not job:
            reasons[job] = f"{target} is the name for {other.photo} already: colour it with another -o"
        elif target.resolve() in photos:
            reasons[job] = f"{target} is itself one of the photos: colour it with another -o"
        elif os.path.lexists(target) and not overwrite:
            reasons[job] = f"{target} exists: give --overwrite, or another -o"
    return reasons


def color_files(colorizer: Colorizer, jobs: Sequence[Job], side_by_side: bool) -> dict[Job, str]:
    """Colour photos together and save the pictures. Returns the jobs that failed, each with the reason."""
    photos: dict[Job, Photo] = {}
    failed: dict[Job, str] = {}
    with warnings.catch_warnings():  # what PIL warns of is either harmless or comes back as a reason
        warnings.simplefilter("ignore")
        for job in jobs:
            try:
                photos[job] = read_photo(job.photo)
            except decode.Undecodable as error:
                failed[job] = error.reason
    for variant in range(max(len(job.targets) for job in jobs)):
        for (job, photo), picture in zip(photos.items(), colorizer.paint([*photos.values()], variant), strict=True):
            target = job.targets[variant]
            try:
                save(beside(photo, picture) if side_by_side else picture, target)
            except (OSError, ValueError) as error:  # a full disk, or a picture too large for the format
                failed[job] = f"{target} can't be written: {error}"
    return failed


def save(picture: Image.Image, target: Path) -> None:
    """Write a picture in the format that the name says; the file is either whole or not there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    picture = decode.over_white(picture) if target.suffix == ".jpg" else picture
    with replacing(target) as draft:
        picture.save(draft, _FORMATS[target.suffix], quality=95, compress_level=3)


def beside(photo: Photo, picture: Image.Image) -> Image.Image:
    """The grey on the left, the picture on the right, both over white."""
    pair = Image.new("RGB", (2 * picture.width, picture.height))
    pair.paste(photo.visible)
    pair.paste(decode.over_white(picture), (picture.width, 0))
    return pair
