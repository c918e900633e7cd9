"""Find photo files, colourize them, and write the results without overwriting anything by accident."""

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from colordist.data import decode
from colordist.errors import UserError, one_line, printable
from colordist.files.atomic import replacing
from colordist.files.opening import NotRegular, require_regular
from colordist.files.paths import output_folder
from colordist.files.patterns import fixed_part, matches
from colordist.inference.colorizer import Colorizer, Photo, read_photo
from colordist.inference.hints import Hint, check_within

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".webp": "WEBP"}


@dataclass(frozen=True)
class Job:
    """A photo and its output file."""

    photo: Path
    target: Path
    variants: int | None = None
    """Number of output files, each with its number after the stem; None: one, without a number."""
    hints: tuple[Hint, ...] = ()
    """Colour hints, in pixels of the upright photo."""

    @property
    def targets(self) -> list[Path]:
        """All output files."""
        if self.variants is None:
            return [self.target]
        return [self.target.with_stem(f"{self.target.stem}-{number}") for number in range(1, self.variants + 1)]


def find_photos(arguments: Sequence[str], out: Path, suffix: str, variants: int | None = None) -> list[Job]:
    """Find photos: files, image files below folders, and matches of patterns such as ``'photos/**/*.jpg'``.

    Output keeps the path relative to the folder, or to the pattern's part without wildcards. If `out` lies inside that,
    its files are left out. Raises UserError for an argument without a match.
    """
    jobs: dict[Job, None] = {}  # an ordered set: a file may be named twice
    results = out.resolve()
    for argument in map(os.path.expanduser, arguments):
        if os.path.isdir(argument):
            root, paths = Path(argument), decode.image_files(Path(argument))
        elif os.path.lexists(argument):
            root, paths = Path(argument).parent, [Path(argument)]
        else:
            root, paths = fixed_part(argument), list(filter(decode.is_image_file, matches(argument)))
        if root.resolve() in results.parents:
            paths = [path for path in paths if not path.parent.resolve().is_relative_to(results)]
        if not paths:
            raise UserError(f"no photo found at {argument}: give image files, folders of them or quoted patterns")
        targets = [out / path.relative_to(root).with_name(path.stem + suffix) for path in paths]
        jobs |= dict.fromkeys(Job(path, target, variants) for path, target in zip(paths, targets, strict=True))
    return list(jobs)


def with_hints(jobs: Sequence[Job], hints: Mapping[str, Sequence[Hint]]) -> list[Job]:
    """Give photos their hints. hints: by the end of a photo's path, as its name; '' for the only photo.

    Raises UserError for a name that isn't that of exactly one photo.
    """
    photos = {job.photo: os.path.abspath(job.photo) for job in jobs}
    found: dict[Path, Sequence[Hint]] = {}
    for name, given in hints.items():
        named = [each for each, path in photos.items() if path == os.path.abspath(name)]
        if not named:
            named = [each for each in photos if not name or f"/{each.as_posix()}".endswith(f"/{name}")]
        if len(named) != 1:
            what = f"hints are for {printable(name)}, the name" if name else "hints name no photo, and may be those"
            count = f"{len(named)} of the {len(photos)} photos" if named else "no photo"
            raise UserError(f"{what} of {count}: name each one, by as much of its path as it takes")
        if named[0] in found:
            raise UserError(f"hints are for {printable(str(named[0]))} under two names: leave one out")
        found[named[0]] = given
    return [replace(job, hints=tuple(found.get(job.photo, ()))) for job in jobs]


def obstacles(jobs: Sequence[Job], overwrite: bool) -> dict[Job, str]:
    """Jobs that would overwrite a file, each with the reason and the way out."""
    photos = {os.path.realpath(job.photo) for job in jobs}  # unlike resolve(), also of a link to itself
    taken = collisions(jobs)
    reasons: dict[Job, str] = {}
    outputs = [(job, target) for job in jobs for target in job.targets]
    for job, target in outputs:
        if job in taken:
            other, shared = taken[job]
            reasons[job] = f"{shared} is the name for {other.photo} already: colour it with another -o"
        elif os.path.realpath(target) in photos:
            reasons[job] = f"{target} is itself one of the photos: colour it with another -o"
        elif os.path.lexists(target) and not overwrite:
            reasons[job] = f"{target} exists: give --overwrite, or another -o"
        elif reason := _in_the_way(target):
            reasons[job] = reason
    return reasons


def collisions(jobs: Sequence[Job]) -> dict[Job, tuple[Job, Path]]:
    """Jobs with an output file of the same name as an earlier one's, each with that job and the last such name."""
    owners: dict[Path, Job] = {}
    found: dict[Job, tuple[Job, Path]] = {}
    for job in jobs:
        for target in job.targets:
            if (other := owners.setdefault(target, job)) is not job:
                found[job] = (other, target)
    return found


def _in_the_way(target: Path) -> str:
    """Why a path can't be overwritten; empty if it can be."""
    try:
        require_regular(target)
    except (NotRegular, OSError) as error:
        return f"{target} can't be overwritten ({one_line(error)}): give another -o"
    return ""


def color_files(colorizer: Colorizer, jobs: Sequence[Job], side_by_side: bool, seed: int = 0) -> dict[Job, str]:
    """Colourize photos as one batch and save the results. Returns the failed jobs, each with the reason."""
    photos, failed = read_photos(jobs)
    for variant in range(max(len(job.targets) for job in jobs)):
        outputs = colorizer.paint([*photos.values()], variant, seed, [job.hints for job in photos])
        for (job, photo), output in zip(photos.items(), outputs, strict=True):
            target = job.targets[variant]
            if reason := try_to_save(side_by_side_image(photo, output) if side_by_side else output, target):
                failed[job] = f"{target} can't be written: {reason}"
    return failed


def read_photos(jobs: Sequence[Job]) -> tuple[dict[Job, Photo], dict[Job, str]]:
    """Read the photos of jobs. Returns them, and the jobs without a usable photo, each with the reason."""
    photos: dict[Job, Photo] = {}
    failed: dict[Job, str] = {}
    with warnings.catch_warnings():  # PIL's warnings are harmless, or followed by an error
        warnings.simplefilter("ignore")
        for job in jobs:
            try:
                photo = read_photo(job.photo)
                check_within(job.hints, photo.grey.size)
                photos[job] = photo
            except decode.Undecodable as error:
                failed[job] = error.reason
            except UserError as error:
                failed[job] = str(error)
    return photos, failed


def try_to_save(output: Image.Image, target: Path) -> str:
    """Save an image. Returns the reason where that fails: a full disk, or an image too large for the format."""
    try:
        save(output, target)
    except (OSError, ValueError, UserError) as error:
        return str(error)
    return ""


def save(output: Image.Image, target: Path) -> None:
    """Write an image atomically, in the format of its extension."""
    output = decode.over_white(output) if target.suffix == ".jpg" else output
    with output_folder(target.parent), replacing(target) as draft:
        output.save(draft, _FORMATS[target.suffix], quality=95, compress_level=3)


def side_by_side_image(photo: Photo, output: Image.Image) -> Image.Image:
    """Grey on the left, result on the right, both composited over white."""
    pair = Image.new("RGB", (2 * output.width, output.height))
    pair.paste(photo.visible)
    pair.paste(decode.over_white(output), (output.width, 0))
    return pair
