"""The source `datasets`: a dataset with a column of images, by the library datasets of Hugging Face, read by row.

Only the test split has to fit into memory. The library finds, downloads and converts; images are read and decoded here,
to the same pixels as those of files in a folder.
"""

import logging
import os
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from colordist.data.decode import Scaling
from colordist.data.source import ImageSource, Source, StreamedDataConfig, check_classes
from colordist.data.sources.dataset_files import Location, load
from colordist.data.sources.dataset_rows import Column, RowSplit, digest, usable
from colordist.data.sources.folder_files import TEST_SHARE, Skipped, list_skipped, listing_digest, merge
from colordist.errors import UserError, printable

logger = logging.getLogger(__name__)

_TEST_SPLITS = ("test", "validation", "valid", "val")
_TEST_SEED = 0x7E57


@dataclass(frozen=True, kw_only=True)
class DatasetSettings(StreamedDataConfig):
    """A dataset with a column of images: `data.root` is a folder, Parquet or Arrow files (a glob pattern), or
    `user/name` on the Hugging Face Hub."""

    operational: ClassVar[frozenset[str]] = StreamedDataConfig.operational | {"config_name", "revision", "cache"}

    config_name: str | None = None
    """Name of the dataset's configuration, also called subset. Default: its only one."""
    revision: str | None = None
    """Branch, tag or commit on the Hub. Default: the newest."""
    cache: str | None = None
    """Folder for downloads and converted files. Default: that of the library, which HF_HOME moves."""
    train_split: str = "train"
    """Split with the training images."""
    test_split: str | None = None
    """Split with the test images. Default: `test`, else `validation`, else a tenth of the training split."""
    column: str | None = None
    """Column with the images. Default: the only one of type Image."""
    class_column: str | None = None
    """Column with the classes. Default: the only one of type ClassLabel."""

    @property
    def location(self) -> Location:
        """Where the dataset is."""
        return Location(self.root, self.config_name, self.revision, self.cache)


class DatasetSource(ImageSource):
    """A dataset of Hugging Face's library."""

    Settings = DatasetSettings
    description = (
        "a dataset read by Hugging Face's library datasets. Its content, origin, licence and JPEG compression, which "
        "blurs colours, are not recorded"
    )

    def open(self) -> Source:
        """Download and convert what isn't there yet; images are read during training."""
        return dataset(self.settings)

    def listing(self) -> str:
        """Digest of the files' relative names and sizes; of a name on the Hub, which isn't asked, of that name."""
        location: Location = self.settings.location
        if location.is_on_hub:
            return listing_digest([(location.root, location.config_name, location.revision)])
        top = location.path if location.path.is_dir() else location.path.parent
        files = [file for file in location.files() if file.is_file()]
        return listing_digest([(os.path.relpath(file, top), file.stat().st_size) for file in files])

    def training_bytes(self) -> int | None:
        """None of the training images are held on the device."""
        return 0

    def missing(self) -> str:
        """Why the images are unavailable without a download; empty if they are there."""
        missing: str = self.settings.location.missing()
        return missing


def dataset(settings: DatasetSettings) -> Source:
    """Open a dataset. Images are decoded, scaled and cropped to squares on access.

    Rows without an image are skipped and logged. Raises UserError if there is no such dataset, split, column or class,
    or no image for one of the splits.
    """
    found, skipped = load(settings.location), dict[str, list[str]]()
    train = _open_split(settings, found, "data.train_split", settings.train_split, skipped)
    name = settings.test_split or next((name for name in _TEST_SPLITS if name in found), settings.train_split)
    if name == settings.train_split:
        train, test = _hold_out(settings, train)
    else:
        test = _open_split(settings, found, "data.test_split", name, skipped)
    logger.info("%s: %d training and %d test images", settings.root, len(train), len(test))
    if skipped:
        logger.warning("%s: skipped %s", settings.root, list_skipped(skipped))
    images = digest([train, test])
    test = replace(test, scaling=train.scaling.of_test_images, digest=images)
    return Source("datasets", replace(train, digest=images), test, digest=images)


def _open_split(settings: DatasetSettings, found: dict[str, Any], key: str, name: str, skipped: Skipped) -> RowSplit:
    """Open a split of a dataset. skipped: is added to."""
    if name not in found:
        splits = ", ".join(f"{printable(each)} ({len(rows):,} rows)" for each, rows in found.items())
        raise UserError(f"{key} is {name}, but the splits of {settings.root} are {splits}: name one of them")
    rows = found[name]
    column = _images(settings, rows)
    lengths = column.lengths()
    kept, without = usable(column, name, lengths)
    skipped |= merge(skipped, without)
    if settings.class_names is not None:
        kept = kept[_of_classes(settings, rows, settings.class_names)[kept]]
    if not len(kept):
        summary = list_skipped(without) or f"{len(rows)} rows"
        raise UserError(
            f"{key}: no image in the split {name} of {settings.root} ({summary}): name another split, column or class"
        )
    return RowSplit(
        digest="", scaling=Scaling.of(settings), column=column, split=name, rows=kept, lengths=lengths[kept]
    )


def _images(settings: DatasetSettings, rows: Any) -> Column:  # noqa: ANN401  Dataset
    """The column of images. Raises UserError."""
    from datasets import Image

    name = settings.column or _only_column(rows, Image, "data.column", settings.root)
    column = Column.of([each["filename"] for each in rows.cache_files], name) if name in rows.features else None
    if column is None:
        raise UserError(
            f"data.column is {name}, but {settings.root} has no column of images of that name: {_columns(rows)}"
        )
    if len(column) != len(rows):
        raise UserError(
            f"data.root: {settings.root} has {len(rows)} rows, but its files have {len(column)}: save it anew by "
            "flatten_indices().save_to_disk"
        )
    return column


def _of_classes(settings: DatasetSettings, rows: Any, classes: tuple[str, ...]) -> NDArray[np.bool_]:  # noqa: ANN401
    """Whether each row is of these classes, [N]. Raises UserError for an unknown column or class."""
    from datasets import ClassLabel, Value

    name = settings.class_column or _only_column(rows, ClassLabel, "data.class_column", settings.root)
    if name not in rows.features:
        raise UserError(f"data.class_column is {name}, but {settings.root} has no such column: {_columns(rows)}")
    feature, values = rows.features[name], rows.data.column(name).to_pylist()
    if not isinstance(feature, ClassLabel | Value):
        raise UserError(f"data.class_column is {name}, which holds no classes: {_columns(rows)}")
    if isinstance(feature, ClassLabel):
        known: list[str] = feature.names
        labels = [None if value in (None, -1) else known[value] for value in values]  # -1: of unknown class
    else:
        labels = [None if value is None else str(value) for value in values]
        known = sorted({label for label in labels if label is not None})
    check_classes(classes, known, settings.root)
    return np.array([label in classes for label in labels], bool)


def _only_column(rows: Any, kind: type, key: str, root: str) -> str:  # noqa: ANN401  Dataset
    """Name of the only column of a type. Raises UserError unless there is just one."""
    names = [str(name) for name, feature in rows.features.items() if isinstance(feature, kind)]
    if len(names) != 1:
        raise UserError(
            f"{key}: {root} has {len(names)} columns of type {kind.__name__}, so name one: {_columns(rows)}"
        )
    return names[0]


def _columns(rows: Any) -> str:  # noqa: ANN401  Dataset
    """For instance 'image (Image), label (ClassLabel), id (int64)'."""
    return ", ".join(f"{printable(name)} ({_kind(feature)})" for name, feature in rows.features.items())


def _kind(feature: Any) -> str:  # noqa: ANN401  a feature of datasets
    """Type of a column: of a plain value its own, else the feature's."""
    name = type(feature).__name__
    return str(feature.dtype) if name == "Value" else name


def _hold_out(settings: DatasetSettings, whole: RowSplit) -> tuple[RowSplit, RowSplit]:
    """Divide a split: a tenth of its rows, by random words that more rows wouldn't change, is for testing."""
    if len(whole) < 2:
        raise UserError(
            f"data.root: {settings.root} has no split for testing, and one image to divide: name data.test_split"
        )
    words = np.random.PCG64(np.random.SeedSequence(_TEST_SEED)).random_raw(int(whole.rows[-1]) + 1)[whole.rows]
    last = np.sort(words)[min(max(int((words < TEST_SHARE * 2**64).sum()), 1), len(words) - 1) - 1]
    return whole.part(np.flatnonzero(words > last)), whole.part(np.flatnonzero(words <= last))
