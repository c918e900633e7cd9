"""A conditional GAN with Lightning and manual optimization, as its guides show it.

    python benchmarks/rivals/lightning_manual.py --processes 2 --out league/lightning

Two optimizers, toggled (https://lightning.ai/docs/pytorch/stable/model/manual_optimization.html); the Trainer counts
both, so it counts two steps a batch. ``ddp_find_unused_parameters_true`` for two processes, as the error of plain
``ddp`` advises, since a backward pass reaches the parameters of one network alone.
Checkpoints by ``ModelCheckpoint`` (https://lightning.ai/docs/pytorch/stable/common/checkpointing_intermediate.html),
continued by ``ckpt_path="last"`` (https://lightning.ai/docs/pytorch/stable/common/trainer.html). Data by torchdata's
stateful loader (https://meta-pytorch.org/data/0.11/torchdata.stateful_dataloader.html), whose state Lightning saves
(https://github.com/Lightning-AI/pytorch-lightning/pull/19475), and its stateful sampler: with ``shuffle=True`` the
sampler that the Trainer puts in its place for two processes doesn't find the order of the images again.
"""

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from torchdata.stateful_dataloader import StatefulDataLoader
from torchdata.stateful_dataloader.sampler import StatefulDistributedSampler
from work import BATCH, SEED, Images, Recorder, discriminator_loss, generator_loss, networks, options


class GAN(L.LightningModule):
    """Generator and discriminator."""

    def __init__(self, width):
        super().__init__()
        self.automatic_optimization = False
        self.g, self.d, *self.both_optimizers = networks(width)

    def configure_optimizers(self):
        return self.both_optimizers

    def train_dataloader(self):
        dataset, processes = Images(args.images), self.trainer.world_size
        sampler = StatefulDistributedSampler(dataset, processes, self.trainer.global_rank, seed=SEED)
        return StatefulDataLoader(dataset, BATCH // processes, sampler=sampler, drop_last=True)

    def training_step(self, batch):
        grey, target = batch
        optimizer_g, optimizer_d = self.optimizers()
        fake = self.g(grey)
        with self.toggled_optimizer(optimizer_d):
            optimizer_d.zero_grad()
            self.manual_backward(discriminator_loss(self.d(grey, target), self.d(grey, fake.detach())))
            optimizer_d.step()
        with self.toggled_optimizer(optimizer_g):
            optimizer_g.zero_grad()
            self.manual_backward(generator_loss(fake, target, self.d(grey, fake)))
            optimizer_g.step()

    def on_train_start(self):  # for the recorder
        self.recorder = Recorder(args.out, self.global_rank)

    def on_train_batch_end(self, outputs, batch, batch_idx):  # for the recorder
        self.recorder.step(self.global_step // 2, batch[0])

    def on_train_end(self):  # for the recorder
        self.recorder.finish(self.g)


args = options()
L.seed_everything(SEED)
trainer = L.Trainer(
    accelerator="cpu",
    devices=args.processes,
    strategy="auto" if args.processes == 1 else "ddp_find_unused_parameters_true",
    max_epochs=-1,
    max_steps=2 * args.steps,
    callbacks=ModelCheckpoint(args.out, every_n_train_steps=2 * args.save_every, save_last="link"),
    logger=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(GAN(args.width), ckpt_path="last")
