"""A conditional GAN with Accelerate and torchdata's StatefulDataLoader, as their guides show them.

    accelerate launch --num_processes 2 benchmarks/rivals/accelerate_stateful.py --out league/stateful

``save_state`` also saves where the loader is (https://huggingface.co/docs/accelerate/package_reference/utilities,
DataLoaderConfiguration; https://docs.pytorch.org/data/0.11/stateful_dataloader_tutorial.html), so nothing is skipped
after ``load_state``; the epoch is still the script's to set. The rest is as in accelerate_plain.py.
"""

from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, ProjectConfiguration, set_seed
from torch.utils.data import DataLoader
from work import BATCH, SEED, Images, Recorder, discriminator_loss, generator_loss, networks, options

args = options()
set_seed(SEED)
accelerator = Accelerator(
    cpu=True,
    dataloader_config=DataLoaderConfiguration(
        split_batches=True, use_seedable_sampler=True, data_seed=SEED, use_stateful_dataloader=True
    ),
    project_config=ProjectConfiguration(project_dir=args.out, automatic_checkpoint_naming=True, total_limit=2),
)
g, d, optimizer_g, optimizer_d = networks(args.width)
loader = DataLoader(Images(args.images), BATCH, shuffle=True, drop_last=True)
g, d, optimizer_g, optimizer_d, loader = accelerator.prepare(g, d, optimizer_g, optimizer_d, loader)


class Progress:
    """Steps done, a part of each checkpoint."""

    step = 0

    def state_dict(self):
        return {"step": self.step}

    def load_state_dict(self, state):
        self.step = state["step"]


progress = Progress()
accelerator.register_for_checkpointing(progress)
checkpoints = list((args.out / "checkpoints").glob("checkpoint_*"))
if checkpoints:
    accelerator.load_state()
    numbers = [int(path.name.rpartition("_")[2]) for path in checkpoints]
    accelerator.project_configuration.iteration = max(numbers) + 1
recorder = Recorder(args.out, accelerator.process_index)


def train_step(grey, target):
    fake = g(grey)
    optimizer_d.zero_grad()
    accelerator.backward(discriminator_loss(d(grey, target), d(grey, fake.detach())))
    optimizer_d.step()
    optimizer_g.zero_grad()
    d.requires_grad_(False)
    accelerator.backward(generator_loss(fake, target, accelerator.unwrap_model(d)(grey, fake)))
    d.requires_grad_(True)
    optimizer_g.step()


while progress.step < args.steps:
    loader.set_epoch(progress.step // len(loader))
    for grey, target in loader:
        train_step(grey, target)
        progress.step += 1
        recorder.step(progress.step, grey)
        if progress.step % args.save_every == 0:
            accelerator.wait_for_everyone()
            accelerator.save_state()
        if progress.step == args.steps:
            break
recorder.finish(accelerator.unwrap_model(g))
accelerator.end_training()
