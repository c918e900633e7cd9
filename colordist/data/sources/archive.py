"""The sources `cifar10`, `cifar100` and `stl10`: one archive each, read by torchvision."""

import contextlib
import http.client
import io
import pickle
import sys
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from colordist.config import FileDataConfig
from colordist.data.decode import Scaling
from colordist.data.source import FlatSplit, ImageSource, Source, check_classes
from colordist.errors import UserError
from colordist.files.download import download_timeout
from colordist.files.paths import expanded


@dataclass(frozen=True)
class Archive:
    """A dataset published as one archive."""

    title: str
    """Display name."""
    dataset: str
    """Class in torchvision.datasets."""
    url: str
    """Download URL."""
    unpacked: str
    """Folder that it unpacks to, next to the archive."""

    @property
    def file(self) -> str:
        """Name of the archive file."""
        return self.url.rsplit("/", 1)[1]


ARCHIVES = {
    "cifar10": Archive(
        "CIFAR-10", "CIFAR10", "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz", "cifar-10-batches-py"
    ),
    "cifar100": Archive(
        "CIFAR-100", "CIFAR100", "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz", "cifar-100-python"
    ),
    "stl10": Archive("STL-10", "STL10", "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz", "stl10_binary"),
}
"""By the source's name."""


class ArchiveSource(ImageSource):
    """A dataset in one archive, downloaded on first use."""

    Settings = FileDataConfig
    name: ClassVar[str]

    def open(self) -> Source:
        """Download the archive if it is missing; read it."""
        settings: FileDataConfig = self.settings
        download(self.name, Path(settings.root))
        return archive(self.name, Path(settings.root), settings.class_names, Scaling.of(settings))

    def missing(self) -> str:
        """Why the images are unavailable without a download; empty if they are there."""
        root, archive = expanded(self.settings.root), ARCHIVES[self.name]
        if (root / archive.unpacked).is_dir() or (root / archive.file).is_file():
            return ""
        return f"{root} holds neither {archive.unpacked} nor {archive.file}: compute nodes may have no internet"


class CIFAR10(ArchiveSource):
    """CIFAR-10."""

    name = "cifar10"
    description = "CIFAR-10 (Krizhevsky 2009): photographs from the internet, 32x32 pixels, in ten classes"


class CIFAR100(ArchiveSource):
    """CIFAR-100."""

    name = "cifar100"
    description = "CIFAR-100 (Krizhevsky 2009): photographs from the internet, 32x32 pixels, in a hundred classes"


class STL10(ArchiveSource):
    """STL-10."""

    name = "stl10"
    description = (
        "STL-10 (Coates et al. 2011): photographs from ImageNet, 96x96 pixels, in ten classes; the labelled ones"
    )


def download(name: str, root: Path) -> None:
    """Download and unpack a dataset below `root`, as far as it is missing.

    name: of the source. CIFAR's archives have 170 MB; STL-10's has 2.6 GB, mostly unlabelled images, which aren't used.
    Not safe for concurrent processes. Raises UserError if it is unavailable.
    """
    root, file = expanded(root), expanded(root) / ARCHIVES[name].file
    try:
        with download_timeout(), _quiet():
            _dataset(name, root, "test", fetch=True)
    except (OSError, RuntimeError, EOFError, http.client.HTTPException, tarfile.TarError, zlib.error) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if file.exists():
            reason += f", and {file} is damaged"
        raise _unavailable(name, root, reason) from error


def archive(name: str, root: Path, classes: tuple[str, ...] | None, scaling: Scaling) -> Source:
    """Read a dataset, or the images of some of its classes.

    CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 50,000 training and 10,000 test images of 32x32 pixels, in 10 and in 100
    classes. STL-10 (Coates et al. 2011): 5,000 and 8,000 of 96x96 pixels, in 10 classes.

    name: of the source.
    root: folder, as for `download`.
    classes: names such as "horse"; None for all of them.
    scaling: of training images; test images are cropped. Other than as published, they are scaled once, on reading.

    Raises UserError if the data is missing or damaged, or has no such class.
    """
    root = expanded(root)
    try:
        train, test = _Part.read(name, root, "train"), _Part.read(name, root, "test")
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, AttributeError, pickle.UnpicklingError) as error:
        raise _unavailable(name, root, "missing or damaged") from error
    if classes:
        check_classes(classes, train.classes, ARCHIVES[name].title)
    names = tuple(each for each in train.classes if not classes or each in classes)
    splits = _split(train.of(names), scaling), _split(test.of(names), scaling.of_test_images)
    return Source(name, *splits, digest=name)  # torchvision has verified the checksums


@dataclass(frozen=True)
class _Part:
    """One split, in the published order."""

    images: NDArray[np.uint8]  # RGB [N, size, size, 3]
    labels: NDArray[np.int64]  # [N], indices into `classes`
    classes: tuple[str, ...]

    @staticmethod
    def read(name: str, root: Path, which: Literal["train", "test"]) -> "_Part":
        found = _dataset(name, root, which)
        if name == "stl10":
            return _Part(found.data.transpose(0, 2, 3, 1), found.labels.astype(np.int64), tuple(found.classes))
        return _Part(found.data, np.asarray(found.targets), tuple(found.classes))

    def of(self, classes: tuple[str, ...]) -> NDArray[np.uint8]:
        """The images of these classes, which are in the published order, too."""
        selected = np.isin(self.labels, [self.classes.index(name) for name in classes])
        return np.ascontiguousarray(self.images[selected])


def _dataset(name: str, root: Path, which: Literal["train", "test"], *, fetch: bool = False) -> Any:  # noqa: ANN401
    """torchvision's dataset, whose constructor verifies the checksums."""
    from torchvision import datasets

    kind = getattr(datasets, ARCHIVES[name].dataset)
    return kind(root, download=fetch, **({"split": which} if name == "stl10" else {"train": which == "train"}))


def _split(images: NDArray[np.uint8], scaling: Scaling) -> FlatSplit:
    scaled = _scale(images, scaling)
    sizes = np.full((len(scaled), 2), scaled.shape[1])
    return FlatSplit.of(scaled.reshape(-1, 3), sizes, scaling.size)


def _scale(images: NDArray[np.uint8], scaling: Scaling) -> NDArray[np.uint8]:
    """Scale square images: [N, side, side, 3]."""
    size = scaling.shorter if scaling.whole else scaling.size
    if images.shape[1] == scaling.shorter == size:
        return images
    scaled = np.empty((len(images), size, size, 3), np.uint8)
    for index, image in enumerate(images):
        scaled[index] = scaling(Image.fromarray(image))
    return scaled


def _quiet() -> contextlib.AbstractContextManager[object]:
    """Keep torchvision's progress bar out of log files."""
    return contextlib.nullcontext() if sys.stderr.isatty() else contextlib.redirect_stderr(io.StringIO())


def _unavailable(name: str, root: Path, reason: str) -> UserError:
    url, file = ARCHIVES[name].url, ARCHIVES[name].file
    return UserError(
        f"data.source {name}: no data in {root} ({reason}); put {url} at {root / file}, "
        "or use your own images (--data.source folder --data.root DIR) or painted scenes (--data.source synthetic)"
    )
