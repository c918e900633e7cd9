"""What one process pays for the number of processes.

    python benchmarks/scale.py --json scale.json

Nothing is launched: this process makes the calls of one rank among many, of the one in the middle unless rank 0 is
named, with so many images a step and process.

- *sampler*: a process draws its samples of a step: images, flips, crops, uniforms;
- *sampler, first step of an epoch*: the same with the order of all images, as far as it isn't ready: every process
  draws it in the background, once a step of the epoch before is drawn, here half a second earlier;
- *failure detector*: heartbeats as they arrive each second, decoded and judged, with the votes of the stop agreement.
  Rank 0 receives those of all, the others rank 0's;
- *stop agreement*: whether all stop after this step;
- *restore*: a checkpoint is loaded, without the digests that rank 0 verifies before. That of a *cyclegan* contains the
  image buffers of all processes.
"""

import itertools
import pickle
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from harness import Results, alternate, arguments, as_text, finish, summary, timed

from colordist.color import ColorSpace
from colordist.data.batch import Share
from colordist.data.sampler import Sampler
from colordist.engine.failure_detector import FailureDetector, Heartbeat, Timeouts
from colordist.engine.joint_stop import JointStop
from colordist.processes import Process
from colordist.run import checkpoint
from colordist.tasks.image_buffer import empty_buffer

TRAINING_IMAGES = 1_281_167  # those of ImageNet
NUMBERS = 8_500_000  # of the networks of configs/cgan.yaml in a checkpoint: weights, moments, EMA weights
SLOTS, SIZE = 3, 32  # of an image buffer: defaults of cyclegan
CALLS = 100  # timed together, where one is short

Arm = Callable[[], float]
"""Measures once, in milliseconds."""


@dataclass(frozen=True)
class World:
    """A number of processes, and what one of them does."""

    processes: int
    images: int
    """A step and process."""
    folder: Path
    """For checkpoints."""
    training_images: int = TRAINING_IMAGES
    numbers: int = NUMBERS
    pause: float = 0.5
    """Seconds before the first step of an epoch."""

    def arms(self) -> dict[str, Arm]:
        """Measurements by name."""
        return {
            "sampler, per step": self._draw(),
            "sampler, first step of an epoch": self._draw_first(),
            "failure detector, rank 0, per second": self._detect(self.processes),
            "failure detector, others, per second": self._detect(1),
            "stop agreement, per step": self._stop(),
            "restore, cgan": self._restore("cgan", {}),
            "restore, cyclegan": self._restore("cyclegan", {"discriminator": 3, "grey_discriminator": 1}),
        }

    def _share(self) -> Share:
        batch = self.images * self.processes
        # A seed of its own: the orders of epochs are cached.
        sampler = Sampler(self.processes, self.training_images, batch, True, random_crops=True)
        rank = self.processes // 2
        return Share(sampler, ColorSpace("lab"), torch.device("cpu"), torch.float32, None, rank, self.processes)

    def _draw(self) -> Arm:
        draw = partial(self._share().sample_slices, 0)

        def later() -> float:
            draw()  # the epoch's order
            return per_call(draw, CALLS)

        return later

    def _draw_first(self) -> Arm:
        share, epochs = self._share(), itertools.count(1)
        sampler = share.sampler

        def first() -> float:
            step = -(-next(epochs) * sampler.length // sampler.global_batch_size)
            share.sample_slices(step - 2)
            time.sleep(self.pause)
            return per_call(lambda: share.sample_slices(step))

        return first

    def _detect(self, peers: int) -> Arm:
        detector, stop = FailureDetector(Timeouts()), JointStop()
        here = Process.current()
        processes = [here if rank < 8 else Process(f"node{rank // 8}") for rank in range(peers)]
        received = [pickle.dumps(Heartbeat(each, count=1)) for each in processes]

        def judge() -> None:
            heartbeats = dict(enumerate(map(pickle.loads, received)))
            stop.lead([heartbeat.vote for heartbeat in heartbeats.values()])
            ended = {rank for rank, each in heartbeats.items() if each.process.has_ended()}
            detector.observe(heartbeats, 0.0, ended)
            detector.verdict()

        return lambda: per_call(judge, CALLS)

    def _stop(self) -> Arm:
        stop, steps = JointStop(), itertools.count()
        return lambda: per_call(lambda: stop.stops_after(next(steps)), CALLS)

    def _restore(self, name: str, buffers: dict[str, int]) -> Arm:
        """buffers: channels of each image buffer."""
        folder, batch = self.folder / f"{name}-{self.processes}", self.images * self.processes
        folder.mkdir()
        rows = {each: empty_buffer(batch, SLOTS, channels, SIZE) for each, channels in buffers.items()}
        module = {str(index): each for index, each in enumerate(torch.zeros(self.numbers).chunk(250))}
        state = {"step": 1, "networks": {"generator": {"module": module}}, "task": rows}
        torch.save(state, folder / "state.pt")
        return lambda: per_call(partial(checkpoint.load, folder))


def per_call(work: Callable[[], object], calls: int = 1) -> float:
    """Milliseconds of a call."""
    return 1e3 * timed(lambda: [work() for _ in range(calls)]) / calls


def measure(processes: list[int], images: int, rounds: int) -> dict[str, dict[int, list[float]]]:
    """Milliseconds by measurement and number of processes, round by round."""
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        worlds = {count: World(count, images, Path(folder)).arms() for count in processes}
        arms = {f"{count} {name}": arm for count, each in worlds.items() for name, arm in each.items()}
        found = alternate(arms, rounds)
    return {name: {count: found[f"{count} {name}"] for count in processes} for name in worlds[processes[0]]}


def main() -> None:
    parser = arguments(__doc__, 10)
    parser.add_argument("--processes", type=int, nargs="+", default=[8, 64, 512], help="numbers of processes")
    parser.add_argument("--images", type=int, default=64, help="a step and process")
    options = parser.parse_args()
    found = measure(options.processes, options.images, options.rounds)
    print(f"| ms | {' | '.join(f'{count} processes' for count in options.processes)} |")
    print("|---" * (1 + len(options.processes)) + "|")
    results: Results = {"images": options.images, "processes": {str(count): {} for count in options.processes}}
    for name, each in found.items():
        for count, values in each.items():
            results["processes"][str(count)][name] = summary(values)
        print(f"| {name} | {' | '.join(as_text(summary(values)) for values in each.values())} |")
    finish(options, results)


if __name__ == "__main__":
    main()
