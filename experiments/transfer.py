"""What it is worth to begin with a network that has learned other things: few images of one class, from both starts.

    python experiments/transfer.py photos --target horse --out runs/transfer --json transfer.json
    python experiments/transfer.py photos --target horse --out runs/transfer --minutes 30  # and again, to go on

One run learns from all classes but the target. Then, for each share of the target's training images and each seed,
two runs of the same length learn from these images alone: *scratch* begins at random, *transfer* with the weights of
the first run. Both see the same images in the same order, and all are scored on all test images of the target. Images
of the target are kept from the first run, or it would have seen those that the others lack.

Runs are run folders: those that are finished are not repeated, those that were stopped go on. After --minutes no new
one is begun, and the one that runs is stopped. The table has mean and range over the seeds of those that are finished,
beside floors and ceiling. PHOTOS is an image folder with a subfolder a class, or with train/ and test/ above these.
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training_runs import begin, minutes_left, spreads, told

from colordist.metrics import METRIC_SPECS
from colordist.run.folder import RunFolder

STARTS = ("scratch", "transfer")
SHOWN = ("ciede2000", "frechet_own", "fid")  # the latter two where runs were scored by them


@dataclass(frozen=True)
class Job:
    """A training run."""

    folder: RunFolder
    settings: dict[str, object]
    start: str
    fraction: float


def main() -> None:
    parser = argparse.ArgumentParser(description="Fine-tuning against learning from scratch, with few images.")
    parser.add_argument("photos", type=Path, help="image folder with a subfolder a class")
    parser.add_argument("--target", default="horse", help="the class to learn with few images")
    parser.add_argument("--out", type=Path, default=Path("runs/transfer"), help="where the runs lie")
    parser.add_argument("--config", type=Path, help="what all runs have in common; default: the quickstart")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="and further settings of all runs")
    parser.add_argument("--steps", type=int, default=2000, help="of each run on the target")
    parser.add_argument("--first_steps", type=int, default=4000, help="of the run on the other classes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--fractions", type=float, nargs="+", default=[0.01, 0.1, 1.0])
    parser.add_argument("--minutes", type=float, help="stop after this time; the same command goes on")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write what was found")
    options = parser.parse_args()
    deadline = time.monotonic() + 60 * options.minutes if options.minutes else None
    done = [job for job in jobs(options) if train(job, options, deadline)]
    finished = [job for job in done if job.start in STARTS]
    rows = [row for fraction in options.fractions for start in STARTS if (row := summary(finished, fraction, start))]
    print(table(rows, finished))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def jobs(options: argparse.Namespace) -> Iterator[Job]:
    """The run on the other classes, then all others, seed by seed."""
    others = [name for name in class_names(options.photos) if name != options.target]
    if len(others) == len(class_names(options.photos)) or not others:
        raise SystemExit(f"{options.photos} needs a folder {options.target} and folders of other classes")
    first = RunFolder(options.out / "first")
    common = {"data.source": "folder", "data.root": options.photos}
    common |= dict(each.split("=", 1) for each in options.set)
    yield Job(first, common | {"data.classes": others, "train.steps": options.first_steps}, "first", 1.0)
    for seed in options.seeds:
        for fraction in options.fractions:
            for start in STARTS:
                settings = common | {"data.classes": [options.target], "train.steps": options.steps, "seed": seed}
                settings |= {"data.fraction": fraction, "data.seed": seed}
                if start == "transfer":
                    settings["train.init_from"] = first.path
                yield Job(RunFolder(options.out / f"{start}-{fraction:g}-{seed}"), settings, start, fraction)


def class_names(photos: Path) -> list[str]:
    """The names of the classes' folders."""
    top = photos / "train" if (photos / "train").is_dir() else photos
    return sorted(path.name for path in top.iterdir() if path.is_dir() and path.name[0] != ".")


def train(job: Job, options: argparse.Namespace, deadline: float | None) -> bool:
    """Train, or go on training, while there is time. Returns whether the run is finished."""
    left = minutes_left(deadline)
    if left is None or left > 0:
        print(job.folder.path, flush=True)
        if begin(job.folder, options.config, job.settings, left).wait():
            raise SystemExit(f"{job.folder.path} failed")
    return job.folder.state == "finished"


def summary(finished: Sequence[Job], fraction: float, start: str) -> dict[str, Any] | None:
    """Mean and range over the seeds of each last score; None where no run is finished."""
    folders = [job.folder for job in finished if (job.fraction, job.start) == (fraction, start)]
    if not folders:
        return None
    scores, references = spreads(folders)
    return {"fraction": fraction, "start": start, "scores": scores, "references": references}


def table(rows: Sequence[dict[str, Any]], finished: Sequence[Job]) -> str:
    """One row a share and start; mean, and range where there are several seeds."""
    if not finished:
        return "no run on the target is finished yet: the same command goes on"
    shown = [spec for spec in METRIC_SPECS if spec.name in SHOWN and spec.name in rows[0]["scores"]]
    lines = [
        f"{'images':>8}  {'start':<9}" + "".join(f"{f'{each.label}, {each.better} is better':>42}" for each in shown)
    ]
    for row in rows:
        cells = [told(row["scores"][each.name], each.digits) for each in shown]
        lines.append(f"{row['fraction']:>8.0%}  {row['start']:<9}" + "".join(f"{cell:>42}" for cell in cells))
    for name, scores in rows[-1]["references"].items():
        cells = [f"{scores[each.name]:.{each.digits}f}" if each.name in scores else "-" for each in shown]
        lines.append(f"{'':>8}  {name:<9}" + "".join(f"{cell:>42}" for cell in cells))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
