"""Photographs: does a pretrained encoder help, and a feature loss, and a GAN? Five arms at equal CPU time.

    python experiments/photographs.py --root PHOTOS --weights DIR --out runs/photographs --json photographs.json
    python experiments/photographs.py ... --minutes 60     # and again, to continue

PHOTOS is a folder with train/ and test/, DIR has tf_efficientnet_lite0.safetensors and
tf_efficientnet_lite1.safetensors (experiments/efficientnet_lite.py). Each arm has as many steps as take --seconds of
CPU time on one core, measured before the first one is trained, kept in OUT/steps.json. Evaluation comes on top. The
first seed of all arms comes first; further seeds are trained for the arms of --repeat. Runs are run folders,
OUT/ARM-SEED: finished ones are not repeated, stopped ones continue.

All arms see the same crops in the same order, for as many steps as they have. The encoder is lite0's, and so is the
network of the feature loss; the kernel and Fréchet distances are by the features of lite1.
"""

import argparse
import itertools
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from training_runs import Job, add_options, as_arguments, cpu_seconds, run

from colordist.config import flatten
from colordist.reporting.comparison import compare
from colordist.reporting.picture import picture
from colordist.run.folder import RunFolder

CONFIGS = Path(__file__).parents[1] / "configs"
SHOWN = (
    "ciede2000",
    "accuracy5",
    "psnr",
    "colorfulness",
    "colorfulness_gap",
    "kernel_tf_efficientnet_lite1",
    "frechet_tf_efficientnet_lite1",
)
SCRATCH = {"name": "unet", "color_space": "lab", "width": 16, "depth": 5, "bottleneck": 448}
"""A U-Net with 4 million parameters, as many as `timm_unet` has."""
CALIBRATION = (10, 60)  # steps: the difference in CPU time is that of the steps alone


@dataclass(frozen=True)
class Arm:
    """What is trained, by the difference from the recipe."""

    config: str = "photos.yaml"
    model: Mapping[str, object] | None = None
    """Replaces the section `model`."""
    weights: bool = True
    features: bool = False


ARMS = {
    "scratch": Arm(model=SCRATCH, weights=False),
    "no-weights": Arm(weights=False),
    "weights": Arm(),
    "features": Arm(features=True),
    "cgan": Arm("photos_cgan.yaml", features=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, "runs/photographs")
    parser.add_argument("--root", type=Path, required=True, help="folder of photographs, with train/ and test/")
    parser.add_argument(
        "--weights", type=Path, required=True, metavar="DIR", help="folder of lite0's and lite1's weights"
    )
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--repeat", nargs="+", default=["scratch", "weights", "cgan"], choices=ARMS, help="all seeds")
    parser.add_argument("--seconds", type=float, default=2400, help="CPU time of the steps of a run")
    parser.add_argument("--feature-weight", type=float, default=1.0)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, each on one core")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="where to draw test images (first seed)")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    wanted = list(jobs(options))
    run(wanted, options, SHOWN, options.jobs)
    first = [job.folder for job in wanted if job.finished and job.settings["seed"] == options.seeds[0]]
    if options.picture and first:
        picture(compare(first)).save(options.picture)


def jobs(options: argparse.Namespace) -> Iterator[Job]:
    """All runs, seed by seed."""
    steps = {arm: calibrated(arm, options) for arm in options.arms}
    for seed, arm in itertools.product(options.seeds, options.arms):
        if seed == options.seeds[0] or arm in options.repeat:
            found = settings(arm, options) | scheduled(steps[arm], options)
            yield Job(RunFolder(options.out / f"{arm}-{seed}"), arm, None, found | {"seed": seed})


def settings(name: str, options: argparse.Namespace) -> dict[str, object]:
    """All settings of an arm by dotted key, but its number of steps."""
    arm = ARMS[name]
    recipe = yaml.safe_load((CONFIGS / arm.config).read_text())
    weights = str(options.weights / "tf_efficientnet_lite0.safetensors")
    recipe["data"]["root"] = str(options.root)
    recipe["model"]["weights"] = weights if arm.weights else "none"
    if arm.model is not None:
        recipe["model"] = arm.model
    if not arm.weights:
        del recipe["optimizer"]["generator"]["lr_scales"]
    if arm.features:
        recipe["task"] |= {
            "feature_weight": options.feature_weight,
            "feature_model": "tf_efficientnet_lite0",
            "feature_weights": weights,
        }
    judge = options.weights / "tf_efficientnet_lite1.safetensors"
    recipe["evaluate"]["metrics"] = [f"{{name: features, model: tf_efficientnet_lite1, weights: {judge}}}"]
    return flatten(recipe) | dict(each.split("=", 1) for each in options.set)


def scheduled(steps: int, options: argparse.Namespace) -> dict[str, object]:
    """Settings that follow from the number of steps."""
    return {"train.steps": steps, "evaluate.every": -(-steps // 4), "checkpoint.every": 200, "log.every": 100}


def calibrated(arm: str, options: argparse.Namespace) -> int:
    """Steps that take the CPU time of a run on one core. Measured once, kept in OUT/steps.json."""
    file = options.out / "steps.json"
    known: dict[str, int] = json.loads(file.read_text()) if file.exists() else {}
    if arm not in known:
        few, many = (measured(arm, count, options) for count in CALIBRATION)
        known[arm] = round(options.seconds * (CALIBRATION[1] - CALIBRATION[0]) / (many - few))
        file.write_text(json.dumps(known, indent=2) + "\n")
        print(f"{arm}: {known[arm]} steps take {options.seconds:.0f} CPU seconds", flush=True)
    return known[arm]


def measured(arm: str, steps: int, options: argparse.Namespace) -> float:
    """CPU seconds of a short run on one core, start and evaluation included."""
    short: dict[str, object] = {
        "train.steps": steps,
        "evaluate.every": steps,
        "checkpoint.every": steps,
        "evaluate.metrics": [],
    }
    if ARMS[arm].config == "photos_cgan.yaml":
        short["task.warmup_steps"] = 0  # with the discriminator, as most steps are
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "colordist.train", "--run.dir", f"{folder}/run", "--seed=0"]
        return cpu_seconds(command + as_arguments(settings(arm, options) | short), [0])


if __name__ == "__main__":
    main()
