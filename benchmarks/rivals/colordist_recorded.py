"""colordist on the work of the league: its user writes colordist.yaml alone, and this file records what it does.

python benchmarks/rivals/colordist_recorded.py --out league/colordist           # one process
accelerate launch --num_processes 2 benchmarks/rivals/colordist_recorded.py --out league/colordist
"""

import sys

import torch
from work import CONFIG, Recorder, options

from colordist import train
from colordist.data.loader import ResidentLoader
from colordist.engine.launch import Launch
from colordist.training.trainer import Trainer

args = options()
recorder = Recorder(args.out, Launch.read().rank)
load, advance, close = ResidentLoader.micro_batches, Trainer.advance, Trainer.close
seen = {}


def recorded_load(self, step):
    batches = load(self, step)
    seen[step] = torch.cat([batch.grey for batch in batches])
    return batches


def recorded_advance(self, step):
    reason = advance(self, step)
    recorder.step(step + 1, seen.pop(step))
    return reason


def recorded_close(self):
    close(self)
    recorder.finish(self.engine.networks["generator"].module)


ResidentLoader.micro_batches, Trainer.advance, Trainer.close = recorded_load, recorded_advance, recorded_close
settings = {"data.root": args.images, "run.dir": args.out / "run", "train.steps": args.steps}
settings |= {"model.width": args.width, "discriminator.width": args.width}
# One line of log and one evaluation, as the others have none.
settings |= {"checkpoint.every": args.save_every, "log.every": args.steps, "evaluate.every": args.steps}
sys.argv[1:] = ["--config", str(CONFIG), *(f"--{key}={value}" for key, value in settings.items())]
if __name__ == "__main__":
    train.main()
