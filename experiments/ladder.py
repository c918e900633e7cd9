"""The ladder: from a shallow autoencoder to the best recipe, one change per rung.

    python experiments/ladder.py --out runs/ladder --json ladder.json              # all rungs, 3 seeds: hours on a GPU
    python experiments/ladder.py --out runs/ladder --minutes 30 --jobs 2           # and again, to continue
    python experiments/ladder.py --steps 1500 --batch 16 --shrink 2 --root photos  # a reduced one, for a CPU

The rungs are the files in configs/ladder. Runs are run folders, OUT/RUNG-SEED: finished ones are not repeated, stopped
ones continue. The first seed of all rungs comes first, so that a time limit leaves a whole ladder.

All rungs get the same images in the same order and the same number of steps. --steps also shortens the warm-ups, in
proportion; --shrink divides all widths; --jobs runs several at once. The table has mean and range over the seeds, and
the scores of the baselines, the oracle and the target; the picture shows the same test images by every rung.
"""

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path

from training_runs import Job, add_options, run

from colordist.cli.parser import parse
from colordist.config import Config, as_dict
from colordist.keys import flatten
from colordist.reporting.comparison import compare
from colordist.reporting.picture import picture
from colordist.run.folder import RunFolder

ROOT = Path(__file__).parents[1]
RUNGS = {file.stem: file for file in sorted((ROOT / "configs" / "ladder").glob("*.yaml"))}
SHOWN = ("mae", "psnr", "accuracy5", "ciede2000", "histogram", "colorfulness", "kernel_tf_efficientnet_lite1", "fid")
WIDTHS = ("model.width", "model.bottleneck", "discriminator.width")
WARM_UPS = ("task.warmup_steps", "optimizer.generator.warmup_steps", "optimizer.discriminator.warmup_steps")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, "runs/ladder")
    parser.add_argument("--rungs", nargs="+", default=list(RUNGS), metavar="RUNG", help="names, or their beginnings")
    parser.add_argument("--steps", type=int, help="of each run; default: the configs'")
    parser.add_argument("--batch", type=int, help="images per step; default: the configs'")
    parser.add_argument("--shrink", type=int, default=1, help="divide all widths by this")
    parser.add_argument("--root", type=Path, help="an image folder; default: CIFAR-10, downloaded")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="where to draw the test images (first seed)")
    options = parser.parse_args()
    wanted = list(jobs(options))
    run(wanted, options, SHOWN, options.jobs)
    first = [job.folder for job in wanted if job.finished and job.settings["seed"] == options.seeds[0]]
    if options.picture and first:
        picture(compare(first)).save(options.picture)


def jobs(options: argparse.Namespace) -> Iterator[Job]:
    """All runs, seed by seed."""
    names = [name for name in RUNGS if name.startswith(tuple(options.rungs))]
    if not names:
        raise SystemExit(f"no rung is called {' or '.join(options.rungs)}: there are {', '.join(RUNGS)}")
    for seed, rung in itertools.product(options.seeds, names):
        config = parse(["--config", str(RUNGS[rung])]).config
        folder = RunFolder(options.out / f"{rung}-{seed}")
        yield Job(folder, rung, RUNGS[rung], settings(config, options) | {"seed": seed})


def settings(config: Config, options: argparse.Namespace) -> dict[str, object]:
    """Settings that differ from a rung's own. A rung without a discriminator has fewer keys."""
    usual = flatten(as_dict(config))
    found: dict[str, object] = {}
    if options.steps:
        scale = options.steps / config.train.steps
        found |= {key: int(float(str(usual[key])) * scale) for key in WARM_UPS if key in usual}
        found |= {"train.steps": options.steps, "evaluate.every": options.steps, "checkpoint.every": options.steps // 4}
    if options.batch:
        found["train.global_batch_size"] = options.batch
    found |= {key: int(str(usual[key])) // options.shrink for key in WIDTHS if usual.get(key) and options.shrink > 1}
    if options.root:
        found |= {"data.source": "folder", "data.root": options.root}
    return found | dict(each.split("=", 1) for each in options.set)


if __name__ == "__main__":
    main()
