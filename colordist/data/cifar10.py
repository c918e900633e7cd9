"""The source `cifar10`: the classic data set of 60,000 images of 32x32 pixels in ten classes."""

import contextlib
import http.client
import io
import pickle
import socket
import sys
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from colordist.config import UserError
from colordist.data.decode import fit
from colordist.data.source import ArraySplit, Source, check_classes

if TYPE_CHECKING:
    from torchvision.datasets import CIFAR10

ARCHIVE = "cifar-10-python.tar.gz"
URL = f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}"
_TIMEOUT = 10.0  # seconds without a byte from the server


def download(root: Path) -> None:
    """Have CIFAR-10 below `root`: nothing if it is there, else unpacked from its archive, else fetched (170 MB).

    Not for several processes at once. Raises UserError if it cannot be had.
    """
    from torchvision.datasets import CIFAR10

    root = root.expanduser()
    try:
        with _impatient(), _quiet():
            CIFAR10(root, train=False, download=True)
    except (OSError, RuntimeError, EOFError, http.client.HTTPException, tarfile.TarError, zlib.error) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if (root / ARCHIVE).exists():
            reason += f", and {root / ARCHIVE} is damaged"
        raise _unavailable(root, reason) from error


def cifar10(root: Path, classes: tuple[str, ...] | None, image_size: int) -> Source:
    """CIFAR-10 as it was published: 50,000 training and 10,000 test images, or those of some classes.

    root: where `download` put it.
    classes: names such as "horse"; None for all ten.
    image_size: side in pixels; other than 32, the images are scaled once, here.

    Raises UserError if the data is not there or damaged, or has no such class.
    """
    from torchvision.datasets import CIFAR10

    root = root.expanduser()
    try:
        train, test = CIFAR10(root, train=True), CIFAR10(root, train=False)
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        raise _unavailable(root, "not there, or damaged") from error
    if classes:
        check_classes(classes, train.classes, "CIFAR-10")
    return Source("cifar10", *(ArraySplit(_scale(_select(part, classes), image_size)) for part in (train, test)))


def _select(dataset: "CIFAR10", classes: tuple[str, ...] | None) -> NDArray[np.uint8]:
    """The images of these classes in the published order: uint8 RGB [N, 32, 32, 3]."""
    numbers = [dataset.class_to_idx[name] for name in classes or dataset.classes]
    images: NDArray[np.uint8] = np.ascontiguousarray(dataset.data[np.isin(dataset.targets, numbers)])
    return images


def _scale(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    if images.shape[1] == size:
        return images
    scaled = np.empty((len(images), size, size, 3), np.uint8)
    for index, image in enumerate(images):
        scaled[index] = fit(Image.fromarray(image), size)
    return scaled


@contextlib.contextmanager
def _impatient() -> Iterator[None]:
    """Give up on a silent server: torchvision sets no timeout."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _quiet() -> contextlib.AbstractContextManager[object]:
    """Keep torchvision's progress bar out of log files."""
    return contextlib.nullcontext() if sys.stderr.isatty() else contextlib.redirect_stderr(io.StringIO())


def _unavailable(root: Path, reason: str) -> UserError:
    return UserError(
        f"data.source cifar10: no data in {root} ({reason}); put {URL} at {root / ARCHIVE}, "
        "or use your own images with --data.source folder --data.root DIR, or made ones with --data.source synthetic"
    )
