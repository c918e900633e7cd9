"""A step as public scripts with Accelerate have it, beside ours: how long it takes, and what it sends.

    python benchmarks/usual.py --json usual.json
    python benchmarks/usual.py --processes 1 --workers 4

*Usual* is ``usual_step`` of sync.py: ``prepare`` for both networks, both called through DistributedDataParallel in both
turns, the discriminator not frozen in the generator's; its images are JPEGs that a ``DataLoader`` opens with PIL and
mirrors with torchvision in worker processes, and both losses are asked for by ``.item()`` after every step. *Ours* is
``Trainer.advance`` on the same files, which also keeps averaged weights and measures gradients. Networks, losses,
optimizers and colour space are the same.

Both train in turns, a block of steps each; what the workers decode ahead while the other one trains is at most a batch
for each. Ours decodes all files once, before that. Told is ``usual / ours``, of the time that a step takes: above 1,
ours is faster; and on several processes how many bytes of gradients a step sends.
"""

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from loading import Files, make
from measuring import beside, end_with_parent, hardware, in_turns, run_together, told
from sync import count_collectives, usual_step
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms.v2.functional import horizontal_flip

from colordist.cli import parse
from colordist.color import ColorSpace
from colordist.config import Config
from colordist.data.loader import Batch
from colordist.data.sampler import UNIFORMS
from colordist.run.folder import RunFolder
from colordist.training.build import build_trainer

ROOT = Path(__file__).parents[1]


class Mirrored(Files):
    """Half of them mirrored, each time anew."""

    def __getitem__(self, index: int) -> Tensor:
        image = super().__getitem__(index)
        return horizontal_flip(image) if torch.rand(()) < 0.5 else image


def from_files(config: Config, workers: int, rank: int, world_size: int) -> Iterator[Batch]:
    """What a DataLoader gives a process, epoch after epoch."""
    files = Mirrored(Path(config.data.root) / "train")
    count = config.train.global_batch_size // world_size
    sampler = torch.utils.data.DistributedSampler(files, world_size, rank, drop_last=True)
    loader = DataLoader(
        files,
        count,
        sampler=sampler,
        num_workers=workers,
        persistent_workers=workers > 0,
        prefetch_factor=1 if workers else None,
    )
    color_space = ColorSpace(config.model.color_space)
    nothing = torch.zeros(count, UNIFORMS), torch.zeros(count, 0, 0)
    while True:
        for rgb in loader:
            if len(rgb) == count:
                grey, target = color_space.split(rgb, torch.float32)
                yield Batch(grey, target, *nothing, grey, torch.arange(count))


def work(options: argparse.Namespace) -> None:
    """What each process does; the first one writes what was found."""
    given = {"data.source": "folder", "data.root": options.root, "data.classes": "all", "loss.warmup_steps": 0}
    given |= {"log.every": options.steps, "evaluate.every": 10**9, "checkpoint.every": 10**9}
    lines = [f"--{key}={value}" for key, value in (given | {"train.precision": "fp32"}).items()]
    config = parse(["--config", str(options.config), *lines, *(f"--{each}" for each in options.set)]).config
    with tempfile.TemporaryDirectory(prefix="usual-") as folder, contextlib.redirect_stdout(io.StringIO()):
        trainer = build_trainer(config, RunFolder(Path(folder) / "run"))
        trainer.begin()
        engine = trainer.engine
        batches = from_files(config, options.workers, engine.rank, engine.world_size)
        step_usually, _ = usual_step(config, lambda _, __: next(batches))

        def usual(step: int) -> None:
            for loss in step_usually(step):
                loss.item()

        arms: dict[str, Callable[[int], object]] = {"usual": usual, "ours": trainer.advance}
        found: dict[str, Any] = {"load": 0.0, "traffic": {}}
        if engine.world_size > 1:
            for name, arm in arms.items():
                arm(0)  # DDP sends more in its first steps
                arm(1)
                found["traffic"][name] = count_collectives(arm, 2)
        found |= beside(in_turns(arms, engine.wait, options.rounds, options.steps, first=3), "usual", "ours")
        found["load"] = os.getloadavg()[0]
        if engine.is_main:
            options.work.write_text(json.dumps(found))
        trainer.close()
        engine.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "cgan.yaml", help="of a plain cgan")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--workers", type=int, default=2, help="that decode for the usual step, a process")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="any other settings")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=10, help="in a block")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)  # be one of the processes
    options = parser.parse_args()
    if options.work is not None:
        end_with_parent()
        work(options)
        return
    found: dict[str, Any] = {"hardware": hardware(), "config": options.config.stem, "workers": options.workers}
    found["processes"] = {}
    print(found["hardware"])
    given = [f"--{each}" for each in options.set]
    size = parse(["--config", str(options.config), *given]).config.data.image_size
    os.environ["ACCELERATE_USE_CPU"] = "true"  # the usual step runs there alone
    with tempfile.TemporaryDirectory(prefix="usual-") as name:
        folder = Path(name)
        for part, images in (("train", 2000), ("test", 10)):
            make(folder / "images" / part, images, size)
        for count in options.processes:
            file = folder / f"found-{count}.json"
            run_together(__file__, [*sys.argv[1:], "--root", str(folder / "images"), "--work", str(file)], count)
            found["processes"][str(count)] = json.loads(file.read_text())
            load_runs(count, found["processes"][str(count)])
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


def load_runs(count: int, found: dict[str, Any]) -> None:
    times = ", ".join(f"{name} {told(found[name], 0, 1e3)} ms" for name in ("usual", "ours"))
    print(f"{count} process{'es' if count > 1 else ''}: usual / ours {told(found['ratio'], 2)}; a step: {times}")
    for name, sent in found["traffic"].items():
        print(f"  {name:5} sends {sent['gradient_bytes']:,} bytes of gradients a step")


if __name__ == "__main__":
    main()
