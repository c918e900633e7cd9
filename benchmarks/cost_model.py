"""What a step of data-parallel training costs: a model of few numbers, each of them measured, counted or assumed.

    step = computing, a straight line in the images of a micro-batch
         + for each turn, what of its gradients' journey backward doesn't hide

Gradients travel in DistributedDataParallel's buckets (Li et al. 2020, arXiv 2006.15704, section 3.2), each as soon as
backward has filled it, one after the other. An all-reduce among n members takes

    ring  2 (n - 1) hops + 2 (n - 1) / n bytes / bandwidth
    tree  2 log2(n) hops + 2 bytes / bandwidth

whichever is less, as NCCL chooses by its own estimate. Ring: a reduce-scatter and an all-gather of
n - 1 hops each (Thakur, Rabenseifner and Gropp 2005, "Optimization of collective communication operations in MPICH");
no algorithm sends less (Patarasuk and Yuan 2009, "Bandwidth optimal all-reduce algorithms for clusters of
workstations"). Tree: up and down, in pieces small enough that all links are busy all the time (Sanders, Speck and Träff
2009, "Two-tree algorithms for full bandwidth broadcast, reduction and scan").

All times are in seconds, sizes in bytes, bandwidths in bytes a second and direction.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

FIRST_BUCKET, BUCKET = 2**20, 25 * 2**20  # bytes: where DistributedDataParallel closes its first, and all others


def fit(columns: ArrayLike, seconds: ArrayLike) -> NDArray[np.float64]:
    """Coefficients that are not negative and predict seconds with the least squares of relative errors.

    columns [n, p]: what each coefficient is multiplied by; seconds [n], above 0. Returns [p]. A coefficient that comes
    out negative is noise around 0, so it is set to that, and the others are fitted again.
    """
    took = np.asarray(seconds, dtype=np.float64)
    relative = np.asarray(columns, dtype=np.float64) / took[:, None]
    coefficients = np.zeros(relative.shape[1])
    kept = np.arange(relative.shape[1])
    while len(kept):
        scale = np.linalg.norm(relative[:, kept], axis=0)  # bytes and hops differ by orders of magnitude
        found = np.linalg.lstsq(relative[:, kept] / scale, np.ones(len(took)), rcond=None)[0] / scale
        if (found >= 0).all():
            coefficients[kept] = found
            break
        kept = kept[found >= 0]
    return coefficients


@dataclass(frozen=True)
class Line:
    """Seconds for an amount."""

    fixed: float
    each: float

    def __call__(self, amount: float) -> float:
        """Seconds for so much."""
        return self.fixed + self.each * amount


def fit_line(amounts: Sequence[float], seconds: Sequence[float]) -> Line:
    """The line closest to measured points, by relative errors."""
    fixed, each = fit([[1.0, amount] for amount in amounts], seconds)
    return Line(float(fixed), float(each))


# --- computing


@dataclass(frozen=True)
class Compute:
    """What a step takes on one process that sends nothing."""

    once: Line
    """A step in one micro-batch of so many images, update included."""
    again: Line
    """Each micro-batch of a step in several. It is dearer: generators run anew for each turn."""
    update: float
    """What such a step takes besides: clipping, optimizers, averaged copies."""

    def __call__(self, images: int, micro_batch: int) -> float:
        """A step of so many images, at most ``micro_batch`` at once."""
        count = math.ceil(images / micro_batch)
        if count == 1:
            return self.once(images)
        return self.update + count * self.again.fixed + self.again.each * images


def fit_compute(steps: dict[tuple[int, int], float]) -> Compute:
    """Fit to seconds by (images, micro-batch), with one and with several micro-batches among them."""
    single = {images: took for (images, micro_batch), took in steps.items() if images == micro_batch}
    several = {key: took for key, took in steps.items() if key[0] > key[1]}
    columns = [[1, math.ceil(images / micro_batch), images] for images, micro_batch in several]
    update, fixed, each = (float(value) for value in fit(columns, list(several.values())))
    return Compute(fit_line(list(single), list(single.values())), Line(fixed, each), update)


# --- communication


@dataclass(frozen=True)
class Link:
    """What joins neighbours."""

    latency: float
    bandwidth: float


def ring(size: float, members: int, link: Link) -> float:
    """All-reduce in a ring."""
    return 2 * (members - 1) * (link.latency + size / members / link.bandwidth)


def tree(size: float, members: int, link: Link) -> float:
    """All-reduce in two trees that share the work."""
    return 2 * math.ceil(math.log2(members)) * link.latency + 2 * size / link.bandwidth


def all_reduce(size: float, members: int, link: Link) -> float:
    """The faster of both; nothing where there is nobody to talk to."""
    return 0.0 if members == 1 else min(ring(size, members, link), tree(size, members, link))


def link_of_two(line: Line) -> Link:
    """The link between two processes whose all-reduces take that long: in a ring, two hops and the bytes once."""
    return Link(line.fixed / 2, 1 / line.each)


@dataclass(frozen=True)
class Cluster:
    """Machines of several GPUs each."""

    inside: Link
    """From one GPU."""
    between: Link
    """From one machine, whose GPUs share it."""
    machine: int = 8
    """GPUs in each."""

    def all_reduce(self, size: float, gpus: int) -> float:
        """Reduce-scatter in each machine, all-reduce of the parts between machines, all-gather in each machine."""
        machines = math.ceil(gpus / self.machine)
        return all_reduce(size, min(gpus, self.machine), self.inside) + all_reduce(size, machines, self.between)


# --- a step


@dataclass(frozen=True)
class Bucket:
    """A piece of a gradient that travels at once."""

    size: int
    ready: float
    """When it may leave: a share of the turn's backward pass, from 0 to 1."""


@dataclass(frozen=True)
class Turn:
    """One network's turn, as far as sending goes."""

    name: str
    backward: float
    """A share of the step's computing, in one micro-batch."""
    buckets: tuple[Bucket, ...]

    @property
    def size(self) -> int:
        """Bytes of its gradient."""
        return sum(bucket.size for bucket in self.buckets)


def buckets(gradients: Sequence[tuple[int, float]]) -> tuple[Bucket, ...]:
    """How DistributedDataParallel cuts gradients, given as (bytes, when ready) in the order in which they come."""
    found: list[Bucket] = []
    size = 0
    for number, (part, ready) in enumerate(gradients):
        size += part
        if size >= (BUCKET if found else FIRST_BUCKET) or number == len(gradients) - 1:
            found.append(Bucket(size, ready))
            size = 0
    return tuple(found)


def nothing(_: float) -> float:
    """No time at all."""
    return 0.0


def exposed(
    turn: Turn, backward: float, send: Callable[[float], float], stall_exempt: Callable[[float], float]
) -> float:
    """How much longer a turn takes since its gradients travel.

    backward: seconds of the pass that they travel behind; send: seconds of an all-reduce of so many bytes; busy: for
    how many of these the processor that computes is occupied.
    """
    free = stolen = 0.0
    for bucket in turn.buckets:
        free = max(bucket.ready * backward + stolen, free) + send(bucket.size)
        stolen += stall_exempt(bucket.size)
    return max(free - backward, stolen)


@dataclass(frozen=True)
class Step:
    """What a step takes."""

    computing: float
    exposed: dict[str, float]
    """What each turn waits for its gradients, by its network."""
    sending: float
    """All that is sent, hidden or not."""

    @property
    def seconds(self) -> float:
        """From start to end."""
        return self.computing + sum(self.exposed.values())


@dataclass(frozen=True)
class Model:
    """A training on some hardware."""

    compute: Compute
    turns: tuple[Turn, ...]
    all_reduce: Callable[[float, int], float]
    """Seconds, by bytes and processes."""
    stall_exempt: Callable[[float], float] = nothing
    """Seconds of the processor, by bytes. GPUs have others for this."""

    def step(self, processes: int, images: int, micro_batch: int) -> Step:
        """A step in which each process has so many images, at most ``micro_batch`` at once."""

        def send(size: float) -> float:
            return self.all_reduce(size, processes)

        stall_exempt = self.stall_exempt if processes > 1 else nothing
        count = math.ceil(images / micro_batch)
        last = self.compute.once(images / count)  # gradients travel behind the last micro-batch alone
        waits = {turn.name: exposed(turn, turn.backward * last, send, stall_exempt) for turn in self.turns}
        sending = sum(send(bucket.size) for turn in self.turns for bucket in turn.buckets)
        return Step(self.compute(images, micro_batch), waits, sending)

    def best_micro_batch(self, processes: int, images: int, most: int) -> int:
        """The micro-batch of the fastest step, of those that have the same size or are one smaller; at most most."""
        counts = range(math.ceil(images / most), images + 1)
        sizes = sorted({math.ceil(images / count) for count in counts}, reverse=True)
        return min(sizes, key=lambda size: self.step(processes, images, size).seconds)

    def weak_efficiency(self, processes: int, images: int) -> float:
        """Speed for each process, relative to one alone; each has so many images, in one micro-batch."""
        return self.step(1, images, images).seconds / self.step(processes, images, images).seconds

    def strong_efficiency(self, processes: int, global_batch: int, most: int) -> float:
        """The same if they share so many images; each takes its best micro-batch."""
        times = [self._fastest(count, math.ceil(global_batch / count), most) for count in (1, processes)]
        return times[0] / processes / times[1]

    def _fastest(self, processes: int, images: int, most: int) -> float:
        return self.step(processes, images, self.best_micro_batch(processes, images, most)).seconds

    def images_for(self, efficiency: float, processes: int, most: int) -> int | None:
        """The fewest images a process, a power of 2, that it takes to be so efficient; None above most."""
        return next((n for n in _powers_of_two(most) if self.weak_efficiency(processes, n) >= efficiency), None)


def _powers_of_two(most: int) -> Iterator[int]:
    number = 1
    while number <= most:
        yield number
        number *= 2


@dataclass(frozen=True)
class Prediction:
    """What the model says of something that was measured, and that it was not fitted to. In seconds."""

    of: str
    predicted: float
    measured: float
    least: float
    most: float

    @property
    def error(self) -> float:
        """Relative to what was measured."""
        return self.predicted / self.measured - 1
