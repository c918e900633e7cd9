"""Flow matching beside a GAN, best-of-N codes and regression, at equal CPU time: on painted scenes, or on horses.

    python experiments/flow.py --out runs/flow --json flow.json
    python experiments/flow.py --minutes 30 --jobs 2       # and again, to continue
    python experiments/flow.py --horses HORSES --weights DIR --seconds 400 --out runs/flow-horses --json horses.json

Each arm is a file in configs/. All have as many steps as take the CPU time of configs/variants.yaml (or --seconds) on
one core, kept in OUT/steps.json. Runs are run folders, OUT/ARM-SEED: finished ones are not repeated, stopped ones
continue. Then the flow's snapshots are scored with other solvers, and the cost of an answer is measured: evaluations of
the network, and CPU seconds on one core for all test images.

HORSES is a folder of horses of CIFAR-10, with train/ and test/; DIR has tf_efficientnet_lite1.safetensors
(experiments/efficientnet_lite.py), whose features are for the kernel distance alone.
"""

import argparse
import dataclasses
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from training_runs import Job, Spread, add_options, as_text, calibrated, given, run, spread

from colordist import registry
from colordist.data.loader import load
from colordist.engine.runtime import Engine
from colordist.evaluation.build_evaluator import build_evaluator
from colordist.evaluation.build_source import build_source
from colordist.keys import flatten, nest
from colordist.run import snapshot
from colordist.run.folder import RunFolder
from colordist.run.snapshot import Snapshot
from colordist.tasks.flow import FlowSettings

CONFIGS = Path(__file__).parents[1] / "configs"
SCENES = {"l1": "quickstart_ae", "cgan": "quickstart_cgan", "variants": "variants", "flow": "quickstart_flow"}
HORSES = {"l1": "ae", "cgan": "cgan", "flow": "flow"}
_ONE = ("ciede2000", "accuracy5", "psnr", "colorfulness", "colorfulness_gap", "kernel_tf_efficientnet_lite1")
_SEVERAL = ("ciede2000_mean", "ciede2000_best", "diversity")
SCENES_SHOWN = ("vivid", "rarest", "ciede2000", *_SEVERAL, "colorfulness_gap")
HORSES_SHOWN = (*_ONE, "frechet_tf_efficientnet_lite1", *_SEVERAL)
SOLVERS = (("euler", 2), ("euler", 4), ("euler", 8), ("euler", 16), ("heun", 2), ("heun", 4), ("heun", 8))
_BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, "runs/flow")
    parser.add_argument("--arms", nargs="+", choices=SCENES, help="default: all")
    parser.add_argument("--seconds", type=float, help="CPU time of the steps of a run; default: that of variants.yaml")
    parser.add_argument("--horses", type=Path, metavar="HORSES", help="folder of images, instead of painted scenes")
    parser.add_argument("--weights", type=Path, metavar="DIR", help="folder of lite1's weights, with --horses")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, each on one core")
    options = parser.parse_args()
    if options.horses and not (options.weights and options.seconds):
        parser.error("--horses needs --weights and --seconds")
    wanted, shown = list(jobs(options)), HORSES_SHOWN if options.horses else SCENES_SHOWN
    run(wanted, options, shown, options.jobs)
    done = [job for job in wanted if job.finished]
    torch.set_num_threads(1)
    print(costs([job for job in done if job.settings["seed"] == options.seeds[0]]))
    if flows := [job for job in done if job.group == "flow"]:
        scores = solver_scores(flows, shown)
        print(solver_table(scores, shown))
        if options.json:
            options.json.with_suffix(".solvers.json").write_text(json.dumps(scores, indent=2) + "\n")


def jobs(options: argparse.Namespace) -> Iterator[Job]:
    """All runs, seed by seed."""
    arms = {arm: settings(name, options) for arm, name in (HORSES if options.horses else SCENES).items()}
    steps = calibrated(options.out / "steps.json", arms, options.seconds or "variants")
    for seed, arm in itertools.product(options.seeds, options.arms or arms):
        more = {"train.steps": steps[arm], "evaluate.every": steps[arm], "seed": seed}
        yield Job(RunFolder(options.out / f"{arm}-{seed}"), arm, None, arms[arm] | more)


def settings(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """All settings of a config by dotted key."""
    recipe = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    if options.horses:
        recipe["data"] = {"source": "folder", "root": str(options.horses), "image_size": 32}
        other = str(options.weights / "tf_efficientnet_lite1.safetensors")
        recipe["evaluate"]["metrics"] = [{"name": "features", "model": "tf_efficientnet_lite1", "weights": other}]
    return flatten(recipe) | given(options)


def with_solver(trained: Snapshot, solver: str, steps: int) -> Snapshot:
    """The same flow with another solver."""
    chosen = dataclasses.replace(trained.task.settings, solver=solver, solver_steps=steps)
    return dataclasses.replace(trained, task=type(trained.task)(chosen, trained.task.model))


def solver_scores(flows: Sequence[Job], shown: Sequence[str]) -> dict[str, dict[str, Spread]]:
    """Scores of each solver: mean and range over the seeds."""
    found: dict[str, dict[str, list[float]]] = {}
    for job in flows:
        config = registry.make_config(nest(job.settings))
        engine, trained = Engine("fp32"), snapshot.read(snapshot.latest(job.folder.path))
        evaluator = build_evaluator(trained.task, build_source(config.data, engine), config.evaluate, engine)
        for solver, steps in SOLVERS:
            scores = evaluator.scores(with_solver(trained, solver, steps).sample)
            for name in shown:
                found.setdefault(f"{solver}, {steps}", {}).setdefault(name, []).append(scores[name])
    return {each: {name: spread(values) for name, values in scores.items()} for each, scores in found.items()}


def solver_table(scores: dict[str, dict[str, Spread]], shown: Sequence[str]) -> str:
    """In Markdown."""
    rows = [["solver, steps", *shown], ["---"] * (1 + len(shown))]
    rows += [[name, *(as_text(each[metric], 2) for metric in shown)] for name, each in scores.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def costs(done: Sequence[Job]) -> str:
    """Cost of one answer to each test image: evaluations of the network, and CPU seconds for all, on one core."""
    lines = []
    for job in done:
        config = registry.make_config(nest(job.settings))
        engine, trained = Engine("fp32"), snapshot.read(snapshot.latest(job.folder.path))
        images = load(build_source(config.data, engine).test, engine.device)
        grey, _ = trained.task.color_space.split(images, torch.float32)
        chosen = SOLVERS if isinstance(trained.task.settings, FlowSettings) else [("", 1)]
        for solver, steps in chosen:
            network = with_solver(trained, solver, steps) if solver else trained
            times = [cpu_seconds_of(network, grey) for _ in range(3)]
            evaluations = 2 * steps - 1 if solver == "heun" else steps
            name = f"{job.group} {solver} {steps}" if solver else job.group
            lines.append(f"{name}: {evaluations} evaluations, {min(times):.2f} CPU seconds for {len(grey)} images")
    return "\n".join(lines)


@torch.no_grad()
def cpu_seconds_of(trained: Snapshot, grey: torch.Tensor) -> float:
    """CPU time of one answer to each image, noise included."""
    begin = time.process_time()
    for part in grey.split(_BATCH):
        trained.sample(part, trained.task.variant_noise(0, part))
    return time.process_time() - begin


if __name__ == "__main__":
    main()
