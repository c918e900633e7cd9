"""Colourize photos: ``python -m colordist.colorize MODEL PHOTOS... -o OUT``."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from colordist.cli import IMPORT_HELP, MODEL_HELP, STEPS_HELP, ArgumentParser, model, path, run
from colordist.console import say
from colordist.errors import RunError, UserError, printable
from colordist.files.paths import make_folder, remove_empty
from colordist.ranges import at_least
from colordist.registry import load_modules

if TYPE_CHECKING:  # which import torch
    from colordist.inference.colorizer import Colorizer
    from colordist.inference.photo_files import Job

_MOST_VARIANTS = 100_000
HINTS_HELP = "JSON file of colour hints: for each photo's name a list of points, x, y and color. See docs/colorize.md."
UPSAMPLE_HELP = "How colours get the photo's resolution: sharpened by its luma, or bilinearly. Default: guided."
SATURATION_HELP = "Factor of the chroma, 0 to 3. Default: 1, as the network says."


def main() -> None:
    """Colourize photos with a trained network. Output: upright sRGB with the photo's alpha, without other metadata."""
    parser = ArgumentParser(prog="colordist colorize", description=main.__doc__)
    parser.add_argument("model", metavar="MODEL", type=model, help=MODEL_HELP)
    parser.add_argument("photos", metavar="PHOTOS", nargs="+", help="Files, folders or patterns like 'in/**/*.jpg'.")
    parser.add_argument("-o", "--output", metavar="OUT", type=path, required=True, help="Output folder.")
    parser.add_argument("--resolution", type=int, help="Shorter side of the network's input. Default: as trained.")
    parser.add_argument("--upsample", choices=("guided", "bilinear"), default="guided", help=UPSAMPLE_HELP)
    parser.add_argument("--saturation", type=float, default=1.0, metavar="X", help=SATURATION_HELP)
    parser.add_argument("--side_by_side", action="store_true", help="Write grey input and result next to each other.")
    parser.add_argument("--overwrite", action="store_true", help="Overwrite existing files.")
    parser.add_argument("--format", choices=("png", "jpg", "webp"), default="png", help="Output format. Default: png.")
    parser.add_argument("--variants", type=int, metavar="N", help="Samples per photo: STEM-1, STEM-2, ...")
    parser.add_argument("--hints", type=path, metavar="FILE", help=HINTS_HELP)
    parser.add_argument("--solver_steps", type=int, metavar="N", help=STEPS_HELP)
    parser.add_argument("--seed", type=int, default=0, help="Seed of a flow's noise. Default: 0.")
    parser.add_argument("--batch_size", type=int, default=8, help="Photos per batch. Default: 8.")
    parser.add_argument("--import", dest="modules", action="append", default=[], metavar="MODULE", help=IMPORT_HELP)
    run(lambda: colorize(parser.parse_intermixed_args()))


def colorize(options: argparse.Namespace) -> None:
    """Colourize all photos. Raises RunError at the end if any of them failed."""
    from colordist.inference.colorizer import load
    from colordist.inference.hints import read_hints
    from colordist.inference.photo_files import find_photos, with_hints

    load_modules(options.modules)
    out = options.output
    at_least("--batch_size", options.batch_size, 1)
    at_least("--variants", options.variants, 1, _MOST_VARIANTS)
    at_least("--seed", options.seed, -(2**63), 2**63 - 1)
    jobs = find_photos(options.photos, out, f".{options.format}", options.variants)
    if options.hints is not None:
        jobs = with_hints(jobs, read_hints(options.hints))
    colorizer = load(options.model, options.resolution, options.upsample, options.solver_steps, options.saturation)
    if options.hints is not None and not colorizer.takes_hints:
        raise UserError(f"--hints: {options.model} takes no hints: train a network with task.hints true")
    most = colorizer.variants
    if None not in (options.variants, most) and options.variants > most:
        raise UserError(f"--variants is {options.variants}, but this network has {most} (model.noise): try {most}")
    try:
        made = make_folder(out)
    except OSError as error:
        raise UserError(f"-o {out} can't be created ({error.strerror}): name another folder") from None
    try:
        _color(jobs, colorizer, options)
    finally:
        remove_empty(made)


def _color(jobs: Sequence["Job"], colorizer: "Colorizer", options: argparse.Namespace) -> None:
    """Colourize photos into the output folder, and print how many."""
    from tqdm import tqdm

    from colordist.inference.photo_files import color_files, obstacles

    size, out, failed = options.batch_size, options.output, obstacles(jobs, options.overwrite)
    todo = [job for job in jobs if job not in failed]
    try:
        with tqdm(total=len(todo), desc="colouring", unit="photo", leave=False, disable=None) as bar:
            for start in range(0, len(todo), size):
                failed |= color_files(colorizer, todo[start : start + size], options.side_by_side, options.seed)
                bar.update(len(todo[start : start + size]))
    except KeyboardInterrupt:
        raise RunError(f"interrupted; finished photos are in {out}, and the same command does the rest") from None
    for job, reason in failed.items():
        say(printable(f"colordist: skipped {job.photo}: {reason}"), error=True)
    if failed:
        raise RunError(f"coloured {len(jobs) - len(failed)} of {len(jobs)} photos: {out}; see above for the others")
    say(f"coloured {len(jobs)} of {len(jobs)} photos: {out}")


if __name__ == "__main__":
    main()
