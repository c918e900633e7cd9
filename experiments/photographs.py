"""Photographs: does a pretrained encoder help, and a feature loss, a GAN, flow matching? Six arms at equal CPU time.

Two further arms have colour hints, for as many steps as the same arms without (experiments/hints.py scores them).

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
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from training_runs import Job, add_options, calibrated, given, run

from colordist import registry
from colordist.color import to_8_bits
from colordist.keys import flatten, nest
from colordist.run import snapshot
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
DRAWN, GAP = 24, 24  # photographs in the picture; pixels between its blocks


@dataclass(frozen=True)
class Arm:
    """What is trained, by the difference from the recipe."""

    config: str = "photos.yaml"
    model: Mapping[str, object] | None = None
    """Replaces the section `model`."""
    task: Mapping[str, object] | None = None
    """Replaces the section `task`."""
    weights: bool = True
    features: bool = False
    hints_of: str | None = None
    """The arm that this one equals but for colour hints, which it is trained with for as many steps."""


ARMS = {
    "scratch": Arm(model=SCRATCH, weights=False),
    "no-weights": Arm(weights=False),
    "weights": Arm(),
    "features": Arm(features=True),
    "cgan": Arm("photos_cgan.yaml", features=True),
    "flow": Arm(task={"name": "flow", "shift": 4.0}),
}
UNHINTED = tuple(ARMS)
ARMS |= {f"hints-{name}": replace(ARMS[name], hints_of=name) for name in ("scratch", "cgan")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, "runs/photographs")
    parser.add_argument("--root", type=Path, required=True, help="folder of photographs, with train/ and test/")
    parser.add_argument(
        "--weights", type=Path, required=True, metavar="DIR", help="folder of lite0's and lite1's weights"
    )
    parser.add_argument("--arms", nargs="+", default=list(UNHINTED), choices=ARMS)
    parser.add_argument("--repeat", nargs="+", default=["scratch", "weights", "cgan"], choices=ARMS, help="all seeds")
    parser.add_argument("--seconds", type=float, default=2400, help="CPU time of the steps of a run")
    parser.add_argument("--feature-weight", type=float, default=1.0, help="relative to the recipe's")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, each on one core")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="where to draw answers (first seed)")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if hasattr(os, "sched_setaffinity"):  # one core for each run, also where there are more than runs
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.jobs])
    wanted = list(jobs(options))
    run(wanted, options, SHOWN, options.jobs)
    first = {job.group: job.folder for job in wanted if job.finished and job.settings["seed"] == options.seeds[0]}
    if options.picture and first:
        draw(first, options).save(options.picture)


def jobs(options: argparse.Namespace) -> Iterator[Job]:
    """All runs, seed by seed."""
    arms = {arm: settings(arm, options) for arm in UNHINTED}
    steps = calibrated(options.out / "steps.json", arms, options.seconds)
    for seed, arm in itertools.product(options.seeds, options.arms):
        if seed == options.seeds[0] or arm in options.repeat:
            found = settings(arm, options) | scheduled(steps[ARMS[arm].hints_of or arm])
            yield Job(RunFolder(options.out / f"{arm}-{seed}"), arm, None, found | {"seed": seed})


def settings(name: str, options: argparse.Namespace) -> dict[str, Any]:
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
    if arm.task is not None:
        recipe["task"] = arm.task
    elif arm.features:
        recipe["task"]["feature_weight"] *= options.feature_weight
        recipe["task"]["feature_weights"] = weights
    else:
        del recipe["task"]["feature_weight"], recipe["task"]["feature_model"]
    if arm.hints_of:
        recipe["task"]["hints"] = True
    other = str(options.weights / "tf_efficientnet_lite1.safetensors")
    recipe["evaluate"]["metrics"] = [{"name": "features", "model": "tf_efficientnet_lite1", "weights": other}]
    return flatten(recipe) | given(options)


def scheduled(steps: int) -> dict[str, Any]:
    """Settings that follow from the number of steps."""
    return {"train.steps": steps, "evaluate.every": steps, "checkpoint.every": 200, "log.every": 100}


def draw(folders: Mapping[str, RunFolder], options: argparse.Namespace) -> Image.Image:
    """The answers of each arm to 24 test photographs drawn by seed 0: two blocks of columns, a row per photograph."""
    config = registry.make_config(nest(settings("weights", options)))
    test = registry.component("source", config.data.source)(config.data).open().test
    order = np.argsort(np.random.PCG64(0).random_raw(len(test)), kind="stable")[:DRAWN]
    images = torch.from_numpy(np.stack([test[int(index)] for index in order])).permute(0, 3, 1, 2)
    columns = {arm: answers(folder, images) for arm, folder in folders.items()}
    side, half = images.shape[-1], DRAWN // 2
    sheet = Image.new("RGB", (2 * len(columns) * side + GAP, half * side + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for column, (arm, pictures) in enumerate(columns.items()):
        for number, picture in enumerate(pictures):
            block, row = divmod(number, half)
            left = (block * len(columns) + column) * side + block * GAP
            sheet.paste(Image.fromarray(picture), (left, GAP + row * side))
            if row == 0:
                pen.text((left + 4, 4), arm, fill="black", font_size=14)
    return sheet


@torch.no_grad()
def answers(folder: RunFolder, images: torch.Tensor) -> NDArray[np.uint8]:
    """A run's answers to images, uint8 [B, 3, H, W]: uint8 [B, H, W, 3]."""
    trained = snapshot.read(snapshot.latest(folder.path))
    task = trained.task
    grey, _ = task.color_space.split(images, torch.float32)
    rgb = to_8_bits(task.color_space.join(grey, trained.sample(grey, task.variant_noise(0, grey))))
    return rgb.permute(0, 2, 3, 1).numpy()


if __name__ == "__main__":
    main()
