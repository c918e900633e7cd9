"""Transfer learning with few images of one class: fine-tuning compared with training from scratch.

    python experiments/transfer.py photos --target horse --out runs/transfer --json transfer.json
    python experiments/transfer.py photos --target horse --out runs/transfer --minutes 30  # and again, to continue

One run is trained on all classes but the target. Then, for each fraction of the target's training images and each seed,
two runs of the same length are trained on these images alone: *scratch* starts from random weights, *transfer* from the
weights of the first run. Both see the same images in the same order, and are scored on all test images of the target.

Runs are run folders: finished ones are not repeated, stopped ones continue. The table has mean and range over the seeds
of those that are finished, and the scores of the baselines, the oracle and the target. PHOTOS is an image folder with a
subfolder per class, or with train/ and test/ above these.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from training_runs import Job, add_options, run

from colordist.run.folder import RunFolder

SHOWN = ("ciede2000", "kernel_tf_efficientnet_lite1", "fid")  # the latter two where evaluate.metrics has them


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="image folder with a subfolder per class")
    add_options(parser, "runs/transfer")
    parser.add_argument("--target", default="horse", help="the class to learn with few images")
    parser.add_argument("--config", type=Path, help="config of all runs; default: the quickstart's")
    parser.add_argument("--steps", type=int, default=2000, help="of each run on the target")
    parser.add_argument("--first_steps", type=int, default=4000, help="of the run on the other classes")
    parser.add_argument("--fractions", type=float, nargs="+", default=[0.01, 0.1, 1.0])
    options = parser.parse_args()
    run(list(jobs(options)), options, SHOWN)


def jobs(options: argparse.Namespace) -> Iterator[Job]:
    """The run on the other classes, then all others, seed by seed."""
    names = class_names(options.photos)
    others = [name for name in names if name != options.target]
    if len(others) == len(names) or not others:
        raise SystemExit(f"{options.photos} needs a folder {options.target} and folders of other classes")
    first = RunFolder(options.out / "first")
    common: dict[str, object] = {"data.source": "folder", "data.root": options.photos}
    common |= dict(each.split("=", 1) for each in options.set)
    on_others = {"data.classes": others, "train.steps": options.first_steps}
    yield Job(first, "", options.config, common | on_others)
    for seed in options.seeds:
        for fraction in options.fractions:
            settings = common | {"data.classes": [options.target], "train.steps": options.steps, "seed": seed}
            settings |= {"data.fraction": fraction, "data.seed": seed}
            for start, initial in (("scratch", {}), ("transfer", {"train.init_from": first.path})):
                folder = RunFolder(options.out / f"{start}-{fraction:g}-{seed}")
                yield Job(folder, f"{fraction:.0%} of the images, {start}", options.config, settings | initial)


def class_names(photos: Path) -> list[str]:
    """The names of the classes' folders."""
    top = photos / "train" if (photos / "train").is_dir() else photos
    return sorted(path.name for path in top.iterdir() if path.is_dir() and path.name[0] != ".")


if __name__ == "__main__":
    main()
