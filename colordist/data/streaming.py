"""A loader of images that don't fit into memory: worker processes read and decode them ahead of the training.

What they deliver is the plan's, in the plan's order, however many they are.
"""

import ctypes
import itertools
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from colordist.config import RunError
from colordist.data.batch import Batch, Share, send
from colordist.data.loader import sample
from colordist.data.sampler import SampleSlice
from colordist.data.source import StreamedSplit

_AHEAD = 4  # portions that each worker decodes ahead
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


@dataclass(frozen=True)
class _Decoded:
    """What becomes of a portion."""

    images: Tensor
    """uint8 [n, 3, H, W]; where training is unpaired, first the grey ones, then those in colour."""
    damaged: list[int]
    """Images that couldn't be decoded."""
    failure: str | None
    """Why there are no images, if there are none: an exception would bring a traceback along."""


@dataclass(frozen=True)
class _Portions(Dataset[_Decoded]):
    """Images by lists of their indices."""

    split: StreamedSplit

    def __getitem__(self, indices: NDArray[np.int64]) -> _Decoded:
        damaged: list[int] = []
        images = []
        try:
            for index in map(int, indices):
                if (image := self.split.read(index)) is None:
                    damaged.append(index)
                    image = self.split.placeholder()
                images.append(image)
        except RunError as error:
            return _Decoded(torch.empty(0), damaged, str(error))
        return _Decoded(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(), damaged, None)


@dataclass(frozen=True)
class _FromStep(Sampler[NDArray[np.int64]]):
    """The images of each portion, step by step without an end."""

    share: Share
    first: int

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        for step in itertools.count(self.first):
            yield from map(self._wanted, self.share.sample_slices(step))

    def _wanted(self, sample_slice: SampleSlice) -> NDArray[np.int64]:
        return (
            np.concatenate([sample_slice.index, sample_slice.target_index])
            if self.share.sampler.unpaired
            else sample_slice.index
        )


class StreamingLoader:
    """A loader of a streamed split. It is meant to be asked for one step after the other: a leap starts it anew."""

    def __init__(self, split: StreamedSplit, share: Share, workers: int) -> None:
        """workers: processes that read and decode; 0: this one does."""
        self._split, self._share, self._count = split, share, workers
        self._stream: Iterator[_Decoded] = iter(())
        self._workers: set[multiprocessing.process.BaseProcess] = set()
        self._next = -1  # the step that the stream goes on with
        self._latest: list[Tensor] = []  # the images of the step before

    def micro_batches(self, step: int) -> list[Batch]:
        """This process's images of a step, in portions of at most micro_batch_size.

        Raises RunError if a shard can't be read or fetched.
        """
        sample_slices = self._share.sample_slices(step)
        if step != self._next - 1:  # a run begins by looking at its first step twice
            if step != self._next:
                self._begin(step)
            self._latest = [self._take() for _ in sample_slices]
            self._next = step + 1
        return [
            self._batch(sample_slice, images) for sample_slice, images in zip(sample_slices, self._latest, strict=True)
        ]

    def _batch(self, sample_slice: SampleSlice, images: Tensor) -> Batch:
        parts = iter(send(images, self._share.device).split(len(sample_slice)))
        return self._share.batch(sample_slice, lambda _: next(parts))

    def _take(self) -> Tensor:
        found = next(self._stream)
        if found.failure is not None:
            raise RunError(found.failure)
        self._split.log_damaged(found.damaged)
        return found.images

    def _begin(self, step: int) -> None:
        self.close()
        before = set(multiprocessing.active_children())
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "This DataLoader will create")  # more workers than cores: they wait a lot
            loader = DataLoader(
                _Portions(self._split),
                batch_size=None,
                sampler=_FromStep(self._share, step),
                num_workers=self._count,
                prefetch_factor=_AHEAD if self._count else None,
                collate_fn=_as_it_is,
                generator=torch.Generator(),  # else it would draw a seed from everybody's
                worker_init_fn=_begin_work,
                # Other ways start a process that imports torch anew, and whose own death ends the workers.
                multiprocessing_context="fork" if self._count and sys.platform == "linux" else None,
            )
            self._stream = iter(loader)
        self._workers = set(multiprocessing.active_children()) - before

    def sample(self) -> Iterable[Tensor]:
        """The first few thousand images: batches of uint8 [B, 3, H, W]."""
        return sample(self._split, self._share.device)

    @property
    def digest(self) -> str:
        """What stands for the images and their order."""
        return self._split.digest

    def close(self) -> None:
        """End the workers."""
        self._stream, self._latest, self._next = iter(()), [], -1  # they end when nobody holds the stream
        for worker in self._workers:
            with suppress(RuntimeError):  # DataLoader's alarm, where an error that is on its way still holds the stream
                worker.kill()  # one that waits for the net, say
                worker.join()
        self._workers = set()


def _as_it_is(decoded: Any) -> Any:  # noqa: ANN401  DataLoader's own would take it apart
    return decoded


def _begin_work(_: int) -> None:
    """In a worker. What asks the training to stop reaches its workers, too, which have to go on until it does."""
    warnings.simplefilter("ignore")  # what PIL warns of is either harmless or comes back as damaged
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)  # else it would hold the parent's connections open
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey, args=(os.getppid(),), daemon=True).start()


def _obey(parent: int) -> None:
    """End at the parent's SIGTERM, but at nobody else's."""
    if sys.platform == "linux":
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
            pass
        os._exit(0)
