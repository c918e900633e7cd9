"""A conditional GAN with torchft's DDP, as its example train_ddp.py and its documentation show it.

    torchft_lighthouse --min_replicas 1 --quorum_tick_ms 100 --join_timeout_ms 10000 &
    REPLICA_GROUP_ID=0 NUM_REPLICA_GROUPS=2 TORCHFT_LIGHTHOUSE=http://localhost:29510 torchrun --nnodes 1 \
        --nproc_per_node 1 --master_port 29600 --max-restarts 10 benchmarks/rivals/torchft_ddp.py --out league/torchft
    REPLICA_GROUP_ID=1 ...the same with another master_port

One worker a replica group, a sampler that shards the images over the groups and a data loader with a state, which each
group saves after every step, as the example advises (https://github.com/pytorch/torchft/blob/main/train_ddp.py,
https://docs.pytorch.org/torchft/data.html); model, optimizers and manager are saved less often, by the first group that
takes part, since they are the same in all. ``init_sync=False``, for the initial weights are equal
(https://docs.pytorch.org/torchft/manager.html). torchft's ``Optimizer`` agrees on a quorum and a commit for each
optimizer that it wraps, so it wraps both as one (https://github.com/pytorch/torchtitan/pull/834): both networks step
after both backward passes. With ``ProcessGroupGloo`` alone, torchft 0.2's DDP fails in the groups that survive another
(an assertion in its communication hook), so errors are kept from it and reported to the manager
(https://docs.pytorch.org/torchft/process_group.html).
"""

import os
from datetime import timedelta

import torch
from torch.distributed.elastic.multiprocessing.errors import record
from torchdata.stateful_dataloader import StatefulDataLoader
from torchft import DistributedDataParallel, DistributedSampler, Manager, Optimizer, ProcessGroupGloo
from torchft.process_group import ErrorSwallowingProcessGroupWrapper
from work import BATCH, SEED, Images, Recorder, discriminator_loss, generator_loss, networks, options

GROUP, GROUPS = int(os.environ["REPLICA_GROUP_ID"]), int(os.environ["NUM_REPLICA_GROUPS"])


class Optimizers:
    """Several optimizers as one."""

    def __init__(self, *optimizers):
        self.optimizers = optimizers

    def zero_grad(self, set_to_none=True):
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none)

    def step(self):
        for optimizer in self.optimizers:
            optimizer.step()

    def state_dict(self):
        return [optimizer.state_dict() for optimizer in self.optimizers]

    def load_state_dict(self, states):
        for optimizer, state in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict(state)


def save(state, path):
    torch.save(state, path.with_suffix(".draft"))
    path.with_suffix(".draft").rename(path)


def backward(g, d, grey, target):
    fake = g(grey)
    discriminator_loss(d(grey, target), d(grey, fake.detach())).backward()
    d.requires_grad_(False)
    generator_loss(fake, target, d(grey, fake)).backward()
    d.requires_grad_(True)


def restore(out, loader, load_state_dict, manager):
    """Load the last checkpoint and this group's position in the data. Returns the epoch."""
    checkpoint, position = out / "checkpoint.pt", out / f"loader-{GROUP}.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=False)
        load_state_dict(state["user"])
        manager.load_state_dict(state["manager"])
    if not position.exists():
        return 0
    state = torch.load(position, weights_only=False)
    loader.load_state_dict(state["loader"])
    return state["epoch"]


@record
def main():
    args = options()
    torch.manual_seed(SEED)
    dataset = Images(args.images)
    sampler = DistributedSampler(dataset, GROUP, GROUPS, group_rank=0, num_replicas=1, shuffle=True, seed=SEED)
    loader = StatefulDataLoader(dataset, BATCH // GROUPS, sampler=sampler, drop_last=True)
    g, d, *optimizers = networks(args.width)

    def state_dict():
        return {"g": g.state_dict(), "d": d.state_dict(), "optimizer": optimizer.state_dict()}

    def load_state_dict(state):
        g.load_state_dict(state["g"])
        d.load_state_dict(state["d"])
        optimizer.load_state_dict(state["optimizer"])

    pg = ErrorSwallowingProcessGroupWrapper(ProcessGroupGloo(timeout=timedelta(seconds=5)))
    manager = Manager(
        pg=pg,
        min_replica_size=1,
        load_state_dict=load_state_dict,
        state_dict=state_dict,
        replica_id=f"gan_{GROUP}",
        timeout=timedelta(seconds=30),
        init_sync=False,
    )
    g, d = DistributedDataParallel(manager, g), DistributedDataParallel(manager, d)
    optimizer = Optimizer(manager, Optimizers(*optimizers))

    epoch = restore(args.out, loader, load_state_dict, manager)
    args.out.mkdir(parents=True, exist_ok=True)
    recorder = Recorder(args.out, GROUP)

    while manager.current_step() < args.steps:
        sampler.set_epoch(epoch)
        for grey, target in loader:
            optimizer.zero_grad()
            backward(g, d, grey, target)
            if pg.error():
                manager.report_error(pg.error())
            before = manager.current_step()
            optimizer.step()
            step = manager.current_step()
            save({"epoch": epoch, "loader": loader.state_dict()}, args.out / f"loader-{GROUP}.pt")
            if step == before:  # not committed: some group failed
                continue
            if manager.is_participating():  # a batch that the recorder may count
                recorder.step(step, grey)
            if manager.participating_rank() == 0 and step % args.save_every == 0:
                save({"user": state_dict(), "manager": manager.state_dict()}, args.out / "checkpoint.pt")
            if step >= args.steps:
                break
        epoch += 1
    recorder.finish(g.module)
    manager.shutdown()


if __name__ == "__main__":
    main()
