"""Colourize uploaded photos with one network, one at a time, and keep the results for an hour. Knows no web page."""

import re
import secrets
import shutil
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from colordist.data.decode import over_white
from colordist.errors import RunError, UserError, printable
from colordist.inference.colorizer import Colorizer, Photo
from colordist.inference.hints import Hint
from colordist.inference.photo_files import Job, collisions, read_photos, try_to_save
from colordist.ranges import whole

FORMATS = ("png", "jpg", "webp")
LIFETIME = 3600
"""Seconds after which uploads and results are removed."""
MOST_VARIANTS = 8
MOST_RESOLUTION = 1024
_PREVIEW = 1600  # pixels of the longer side
_LONGEST_NAME = 160  # bytes of the stem: file systems limit names to 255


@dataclass(frozen=True)
class Limits:
    """What one request may ask for."""

    megabytes: int = 50
    """Size of a file, in MiB."""
    files: int = 20


@dataclass(frozen=True)
class Upload:
    """A photo that was uploaded: where it is, and what its owner calls it."""

    file: Path
    name: str


@dataclass(frozen=True)
class Choices:
    """Settings of a request, as the options of ``colordist colorize``."""

    resolution: int | None = None
    upsample: str = "guided"
    saturation: float = 1.0
    format: str = "png"
    variants: int = 1
    """Number of answers; 1: one, without a number in its name."""
    seed: int = 0


@dataclass(frozen=True)
class Picture:
    """A result, and small copies of the grey photo and of the result to look at."""

    file: Path
    before: Path
    after: Path
    photo: Path
    size: tuple[int, int]
    """Width and height of the photo."""
    small_size: tuple[int, int]


@dataclass(frozen=True)
class Outcome:
    """What became of a photo: pictures, or the reason why there are none, or not all."""

    name: str
    pictures: tuple[Picture, ...] = ()
    problem: str = ""


class Service:
    """One network for all requests, which takes one photo at a time, and the folder of results."""

    def __init__(self, colorizer: Colorizer, folder: Path, limits: Limits) -> None:
        self.colorizer = colorizer
        self.limits = limits
        self.most_variants = MOST_VARIANTS if colorizer.variants is None else min(colorizer.variants, MOST_VARIANTS)
        self._folder = folder
        self._busy = threading.Lock()
        self._closed = False

    def color(
        self,
        uploads: Sequence[Upload],
        choices: Choices,
        request: Path,
        hints: Mapping[Path, Sequence[Hint]] | None = None,
    ) -> Iterator[Outcome]:
        """Colourize uploads into the folder of a request, and yield the outcome of each when it is there.

        hints: of files, for a network that takes some.

        Raises UserError for choices out of range, or for too many uploads; RunError where memory runs out.
        """
        colorizer = self._adjusted(choices)
        uploads = list(dict.fromkeys(uploads))  # one may have been chosen twice
        if len(uploads) > self.limits.files:
            raise UserError(f"{len(uploads)} photographs are more than {self.limits.files}: choose fewer at a time")
        jobs = [_job(upload, request, choices, (hints or {}).get(upload.file, ())) for upload in uploads]
        taken = {job: f"its result would be named {each[1].name}, too" for job, each in collisions(jobs).items()}
        for upload, job in zip(uploads, jobs, strict=True):
            if reason := self._too_large(upload):
                yield Outcome(upload.name, problem=reason)
            elif reason := taken.get(job, ""):
                yield Outcome(upload.name, problem=f"{reason}: colour it on its own")
            else:
                yield self._color(colorizer, job, upload.name, choices.seed)

    def new_request(self, last: Path | None = None) -> Path:
        """Make a folder for results, of a name that nobody guesses.

        Removes those of an hour ago, and those of the same visitor's last request.
        """
        self._folder.mkdir(exist_ok=True)
        for each in self._folder.iterdir():
            if each == last or each.stat().st_mtime < time.time() - LIFETIME:
                shutil.rmtree(each, ignore_errors=True)
        folder = self._folder / secrets.token_urlsafe(16)
        folder.mkdir()
        return folder

    def close(self) -> None:
        """Wait for the photo that is being coloured, and colour no other."""
        self._closed = True
        with self._busy:
            pass

    def _adjusted(self, choices: Choices) -> Colorizer:
        """The colorizer of a request. Raises UserError for choices out of range."""
        if choices.format not in FORMATS:
            raise UserError(f"format is {printable(str(choices.format))}, but must be one of {', '.join(FORMATS)}")
        whole("variants", choices.variants, 1, self.most_variants)
        whole("seed", choices.seed, -(2**63), 2**63 - 1)
        resolution = choices.resolution
        if resolution is not None:
            whole("resolution", resolution, 1, max(MOST_RESOLUTION, self.colorizer.resolution))
        return self.colorizer.adjusted(resolution, choices.upsample, choices.saturation)

    def _too_large(self, upload: Upload) -> str:
        """Why a file isn't read; empty if it may be."""
        try:
            size = upload.file.stat().st_size
        except OSError:
            return "it was removed in the meantime: choose it again"
        if size > self.limits.megabytes * 2**20:
            return f"it has {size / 2**20:.0f} MB, more than {self.limits.megabytes}: make it smaller"
        return ""

    def _color(self, colorizer: Colorizer, job: Job, name: str, seed: int) -> Outcome:
        """Colourize one photo. Raises RunError where memory runs out, or when this is closed."""
        with self._busy:
            if self._closed:
                raise RunError("the server is being stopped")
            photos, failed = read_photos([job])
            if failed:
                return Outcome(name, problem=failed[job])
            pictures: list[Picture] = []
            for variant, target in enumerate(job.targets):
                (output,) = colorizer.paint([photos[job]], variant, seed, [job.hints])
                if reason := try_to_save(output, target):
                    return Outcome(name, tuple(pictures), f"{target.name} can't be written: {_without(target, reason)}")
                pictures.append(_picture(job.photo, photos[job], output, target))
            return Outcome(name, tuple(pictures))


def pack(pictures: Sequence[Picture], file: Path) -> Path:
    """Write all pictures into one zip file, uncompressed as they are compressed already."""
    with zipfile.ZipFile(file, "w") as archive:
        for picture in pictures:
            archive.write(picture.file, picture.file.name)
    return file


def safe_name(name: str) -> str:
    """A file's name as its owner calls it, without folders, characters that break a line, and excessive length."""
    last = printable(re.split(r"[/\\]", name)[-1])
    path = Path(last) if last.strip(".") else Path("photo")
    return path.stem.encode()[:_LONGEST_NAME].decode(errors="ignore") + path.suffix[:20]


def _job(upload: Upload, folder: Path, choices: Choices, hints: Sequence[Hint]) -> Job:
    target = folder / f"{Path(upload.name).stem}.{choices.format}"
    return Job(upload.file, target, choices.variants if choices.variants > 1 else None, tuple(hints))


def _picture(file: Path, photo: Photo, output: Image.Image, target: Path) -> Picture:
    """Save small copies of the grey photo and of the result beside it."""
    looks = target.parent / "previews"
    looks.mkdir(exist_ok=True)
    before, after = (looks / f"{target.stem}-{side}.jpg" for side in ("before", "after"))
    for image, copied in ((photo.visible, before), (over_white(output), after)):
        small = image.copy()
        small.thumbnail((_PREVIEW, _PREVIEW), reducing_gap=3)
        small.save(copied, "JPEG", quality=90)
    return Picture(target, before, after, file, output.size, small.size)


def _without(target: Path, reason: str) -> str:
    """A reason without the name of a folder, which is nobody's business."""
    return printable(reason.replace(f"{target.parent}/", ""))
