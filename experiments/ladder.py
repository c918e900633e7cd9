"""The ladder: from doing nothing to the best recipe, one change a rung, each scored beside floors and ceiling.

    python experiments/ladder.py --out runs/ladder --json ladder.json              # all rungs, 3 seeds: hours on a GPU
    python experiments/ladder.py --out runs/ladder --minutes 30 --jobs 2           # and again, to go on
    python experiments/ladder.py --steps 1500 --batch 16 --shrink 2 --root photos  # a reduced one, for a CPU

The rungs are the files in configs/ladder. Runs are run folders, OUT/RUNG-SEED: those that are finished are not
repeated, those that were stopped go on. The first seed of all rungs comes first, so that a budget leaves a whole
ladder. After --minutes no run is begun, and those that run are stopped.

All rungs get the same images in the same order and the same number of steps. --steps also shortens the warm-ups, in
proportion; --shrink divides all widths; --jobs runs several at once, each on its share of the cores. The table has mean
and range over the seeds; the picture shows the same test images through every rung (first seed).
"""

import argparse
import itertools
import json
import os
import platform
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Queue
from typing import Any

import torch
from training_runs import begin, minutes_left, spreads, told

from colordist.cli.parser import parse
from colordist.config import Config, flatten
from colordist.metrics import METRIC_SPECS
from colordist.reporting.picture import comparison
from colordist.run.folder import RunFolder

ROOT = Path(__file__).parents[1]
RUNGS = {file.stem: file for file in sorted((ROOT / "configs" / "ladder").glob("*.yaml"))}
SHOWN = ("mae", "psnr", "accuracy5", "ciede2000", "histogram", "colorfulness", "frechet_own", "named_own", "fid")
WIDTHS = ("model.width", "model.bottleneck", "discriminator.width")
WARM_UPS = ("task.warmup_steps", "optimizer.generator.warmup_steps", "optimizer.discriminator.warmup_steps")


@dataclass(frozen=True)
class Job:
    """A training run."""

    rung: str
    seed: int
    folder: RunFolder
    settings: dict[str, object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/ladder"), help="where the runs lie")
    parser.add_argument("--rungs", nargs="+", default=list(RUNGS), metavar="RUNG", help="names, or how they begin")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, help="of each run; default: the configs'")
    parser.add_argument("--batch", type=int, help="images a step; default: the configs'")
    parser.add_argument("--shrink", type=int, default=1, help="divide all widths by this")
    parser.add_argument("--root", type=Path, help="an image folder; default: CIFAR-10, downloaded")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="further settings of all runs")
    parser.add_argument("--minutes", type=float, help="stop after this time; the same command goes on")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all scores")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="where to draw the test images")
    options = parser.parse_args()
    deadline = time.monotonic() + 60 * options.minutes if options.minutes else None
    wanted = list(jobs(options))
    climb(wanted, options.jobs, deadline)
    finished = [job for job in wanted if job.folder.state == "finished"]
    by_rung = {rung: [job for job in finished if job.rung == rung] for rung in RUNGS}
    rows = [summary(rung, runs) for rung, runs in by_rung.items() if runs]
    print(f"{len(finished)} of {len(wanted)} runs are finished")
    if not rows:
        return
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "rungs": rows}, indent=2) + "\n")
    first = [job.folder for job in finished if job.seed == options.seeds[0]]
    if options.picture and first:
        comparison(first).save(options.picture)


def jobs(options: argparse.Namespace) -> Iterator[Job]:
    """All runs, seed by seed."""
    names = [name for name in RUNGS if name.startswith(tuple(options.rungs))]
    if not names:
        raise SystemExit(f"no rung is called {' or '.join(options.rungs)}: there are {', '.join(RUNGS)}")
    for seed, rung in itertools.product(options.seeds, names):
        config = parse(["--config", str(RUNGS[rung])]).config
        yield Job(rung, seed, RunFolder(options.out / f"{rung}-{seed}"), settings(config, options) | {"seed": seed})


def settings(config: Config, options: argparse.Namespace) -> dict[str, object]:
    """What differs from a rung's own settings."""
    usual = flatten(asdict(config))
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


def climb(wanted: Sequence[Job], at_once: int, deadline: float | None) -> None:
    """Train what isn't finished, several runs at a time, while there is time."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    shares: Queue[list[int]] = Queue()
    for number in range(at_once):
        shares.put(cores[number::at_once])

    def work(job: Job) -> None:
        share = shares.get()
        try:
            train(job, share, deadline)
        finally:
            shares.put(share)

    with ThreadPoolExecutor(at_once) as pool:
        for _ in pool.map(work, [job for job in wanted if job.folder.state != "finished"]):
            pass


def train(job: Job, cores: Sequence[int], deadline: float | None) -> None:
    """Train, or go on training, while there is time."""
    left = minutes_left(deadline)
    if left is not None and left <= 0:
        return
    started = time.monotonic()
    process = begin(job.folder, RUNGS[job.rung], job.settings, left)
    if cores:
        os.sched_setaffinity(process.pid, cores)
    if process.wait():
        raise SystemExit(f"{job.folder.path} failed")
    print(f"{job.folder.path} {job.folder.state} after {time.monotonic() - started:.0f} s", flush=True)


def summary(rung: str, finished: Sequence[Job]) -> dict[str, Any]:
    """Mean and range over the seeds of each last score, of floors and ceiling too."""
    scores, references = spreads([job.folder for job in finished])
    return {"rung": rung, "seeds": [job.seed for job in finished], "scores": scores, "references": references}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """In Markdown: floors, rungs from below, ceiling and truth."""
    shown = [spec for spec in METRIC_SPECS if spec.name in SHOWN and spec.name in rows[0]["scores"]]
    arrows = {"lower": "↓", "higher": "↑", "truth": "→"}
    lines = [["", *(f"{each.label} {arrows[each.better]}" for each in shown)]]
    references = {
        name: [name, *(_plain(scores.get(each.name), each.digits) for each in shown)]
        for name, scores in rows[0]["references"].items()
    }
    lines += [references[name] for name in ("grey", "constant") if name in references]
    for row in rows:
        cells = [told(row["scores"][each.name], each.digits) for each in shown]
        lines.append([row["rung"], *cells])
    lines += [references[name] for name in ("oracle", "truth") if name in references]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def machine() -> str:
    """What it ran on."""
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    return f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"


if __name__ == "__main__":
    main()
