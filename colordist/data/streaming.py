"""Loader for images that don't fit into memory: worker processes read and decode ahead of training.

Its batches are those of the sampler, on any number of workers.
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

from colordist.data.batch import Batch, Share, send
from colordist.data.crops import crop
from colordist.data.loader import sample
from colordist.data.sampler import SampleSlice
from colordist.data.source import StreamedSplit
from colordist.errors import RunError

_PREFETCH = 4  # micro-batches per worker
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG

_Samples = tuple[NDArray[np.int64], NDArray[np.float64]]  # indices of images, and positions of their crops


@dataclass(frozen=True)
class _Decoded:
    """A decoded micro-batch."""

    images: Tensor
    """uint8 [n, 3, H, W]; in unpaired training the grey images, then the target images."""
    damaged: list[int]
    """Indices of images that can't be decoded."""
    failure: str | None
    """Error message, if there are no images: an exception would bring the worker's traceback along."""


@dataclass(frozen=True)
class _MicroBatches(Dataset[_Decoded]):
    """Micro-batches by the indices of their images [n] and the positions of their crops [n, 2]."""

    split: StreamedSplit

    def __getitem__(self, samples: _Samples) -> _Decoded:
        damaged: list[int] = []
        images = []
        try:
            for index, position in zip(samples[0].tolist(), samples[1], strict=True):
                if (image := self.split.read(index)) is None:
                    damaged.append(index)
                    image = self.split.placeholder()
                images.append(crop(image, self.split.image_size, position))
        except RunError as error:
            return _Decoded(torch.empty(0), damaged, str(error))
        return _Decoded(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(), damaged, None)


@dataclass(frozen=True)
class _StepSampler(Sampler[_Samples]):
    """Images and crops of each micro-batch, from a step on without end."""

    share: Share
    first: int

    def __iter__(self) -> Iterator[_Samples]:
        for step in itertools.count(self.first):
            yield from map(self._samples, self.share.sample_slices(step))

    def _samples(self, part: SampleSlice) -> _Samples:
        if not self.share.sampler.unpaired:
            return part.index, part.crop
        return np.concatenate([part.index, part.target_index]), np.concatenate([part.crop, part.target_crop])


class StreamingLoader:
    """Loader of a streamed split, for consecutive steps: any other step restarts the workers."""

    def __init__(self, split: StreamedSplit, share: Share, workers: int) -> None:
        """workers: number of worker processes; 0: load in this process."""
        self._split, self._share, self._num_workers = split, share, workers
        self._stream: Iterator[_Decoded] = iter(())
        self._workers: set[multiprocessing.process.BaseProcess] = set()
        self._next = -1  # the step that follows in the stream
        self._latest: list[Tensor] = []  # images of the previous step

    def micro_batches(self, step: int) -> list[Batch]:
        """Load this process's samples of a step, in micro-batches of at most micro_batch_size.

        Raises RunError if an image can't be read.
        """
        sample_slices = self._share.sample_slices(step)
        if step != self._next - 1:  # training reads its first step twice
            if step != self._next:
                self._start(step)
            self._latest = [self._next_images() for _ in sample_slices]
            self._next = step + 1
        return [
            self._batch(step, sample_slice, images)
            for sample_slice, images in zip(sample_slices, self._latest, strict=True)
        ]

    def _batch(self, step: int, sample_slice: SampleSlice, images: Tensor) -> Batch:
        parts = iter(send(images, self._share.device).split(len(sample_slice)))
        return self._share.batch(
            step, sample_slice, lambda _index, _crop, flip: self._share.flip_and_split(next(parts), flip)
        )

    def _next_images(self) -> Tensor:
        decoded = next(self._stream)
        if decoded.failure is not None:
            raise RunError(decoded.failure)
        self._split.log_damaged(decoded.damaged)
        return decoded.images

    def _start(self, step: int) -> None:
        self.close()
        before = set(multiprocessing.active_children())
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "This DataLoader will create"
            )  # more workers than cores are fine: they mostly wait
            loader = DataLoader(
                _MicroBatches(self._split),
                batch_size=None,
                sampler=_StepSampler(self._share, step),
                num_workers=self._num_workers,
                prefetch_factor=_PREFETCH if self._num_workers else None,
                collate_fn=_identity,
                generator=torch.Generator(),  # else the workers' seed comes from the global RNG
                worker_init_fn=_init_worker,
                # Other start methods import torch again, in a server process whose death ends the workers.
                multiprocessing_context="fork" if self._num_workers and sys.platform == "linux" else None,
            )
            self._stream = iter(loader)
        self._workers = set(multiprocessing.active_children()) - before

    def sample(self) -> Iterable[Tensor]:
        """The first few thousand images: batches of uint8 [B, 3, H, W]."""
        return sample(self._split, self._share.device)

    @property
    def digest(self) -> str:
        """Digest of the images and their order."""
        return self._split.digest

    def close(self) -> None:
        """Stop the workers."""
        self._stream, self._latest, self._next = iter(()), [], -1  # workers stop when the stream is collected
        for worker in self._workers:
            with suppress(RuntimeError):  # from DataLoader, where an exception in flight still holds the stream
                worker.kill()  # it may be blocked on the network
                worker.join()
        self._workers = set()


def _identity(decoded: Any) -> Any:  # noqa: ANN401  the default would split the dataclass
    return decoded


def _init_worker(_: int) -> None:
    """Ignore the signals that ask training to stop: a worker goes on until its parent stops it."""
    warnings.simplefilter("ignore")  # PIL's warnings are harmless, or followed by an error
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)  # else it would keep the parent's connections open
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_exit_on_sigterm_of, args=(os.getppid(),), daemon=True).start()


def _exit_on_sigterm_of(parent: int) -> None:
    """Exit on the parent's SIGTERM, and ignore that of other processes."""
    if sys.platform == "linux":
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
            pass
        os._exit(0)
