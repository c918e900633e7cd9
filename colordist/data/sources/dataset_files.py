"""Find and load what ``data.root`` names for the source `datasets`: folders, files, names on the Hub."""

import contextlib
import glob
import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from colordist.errors import UserError, one_line
from colordist.extras import needs_extra
from colordist.files.download import quiet
from colordist.files.hub import check_endpoint, dataset_commit
from colordist.files.opening import require_regular
from colordist.files.paths import expanded
from colordist.files.patterns import matches

_READERS = {".parquet": "parquet", ".arrow": "arrow"}  # of files, by extension
_SAVED = ("dataset_dict.json", "state.json")  # written by save_to_disk
_SPLIT = re.compile(r"(?<![a-z])(train|test|validation|valid|val)(?![a-z])", re.I)
_MOST_REASON = 300  # characters of another library's message
_HUB = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_COMMIT = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True)
class Location:
    """Where a dataset is, and which part of it is meant."""

    root: str
    """Folder, file, glob pattern, or name on the Hub."""
    config_name: str | None = None
    revision: str | None = None
    cache: str | None = None

    @property
    def path(self) -> Path:
        """The root as a path."""
        return expanded(self.root)

    @property
    def is_on_hub(self) -> bool:
        """Whether it is a name on the Hub: a file or folder of this name comes first.

        Where its first part is a folder, it is taken for a path, possibly misspelt, unless a revision is given.
        """
        is_path = self.path.exists() or (self.path.parent.is_dir() and self.revision is None)
        return not is_path and _HUB.fullmatch(self.root) is not None

    def files(self) -> list[Path]:
        """The files at the root, or those that match it, sorted; empty where there are none."""
        if self.path.is_dir():
            return sorted(Path(here, name) for here, _, names in os.walk(self.path) for name in names)
        if self.path.is_file():  # with characters of patterns in its name, perhaps
            return [self.path]
        return [file for file in matches(str(self.path)) if file.is_file()]

    def missing(self) -> str:
        """Why the dataset is unavailable without a download; empty if it is there."""
        if not self.is_on_hub:
            absent = f"there are no files in {self.root}" if self.path.is_dir() else f"there is no {self.root}"
            return "" if self.files() else absent
        with needs_extra("datasets", "data.source datasets"):
            from datasets import config
        cache = expanded(self.cache or config.HF_DATASETS_CACHE)
        there = (cache / self.root.replace("/", "___")).is_dir()
        return "" if there else f"{cache} doesn't hold {self.root}: compute nodes may have no internet"


def load(location: Location) -> dict[str, Any]:
    """Load a dataset: ``datasets.Dataset`` by split, each in Arrow files; the cache gets those that aren't there yet.

    Raises UserError where there is none, it can't be read or downloaded, or has a pipe or a device among its files.
    """
    check_endpoint()
    with needs_extra("datasets", "data.source datasets"):
        import datasets
    if not location.is_on_hub and (absent := location.missing()):
        raise UserError(f"data.root: {absent}: name a folder or files of a dataset, or user/name on the Hub")
    if not location.is_on_hub:
        _check_local(location)
    try:
        with _quiet():
            found = _load(location)
    except Exception as error:  # the library, its readers and the Hub's client raise nearly anything
        raise UserError(
            f"data.root: {location.root} can't be loaded ({_reason(error)}); {_way_out(location)}"
        ) from error
    if isinstance(found, datasets.Dataset):  # saved without splits
        return {"train": found}
    return {str(name): split for name, split in found.items()}


def _check_local(location: Location) -> None:
    """Raise UserError for what the library would ignore, as settings of the Hub alone, or wait for, as a pipe."""
    root, way_out = f"data.root {location.root}", "leave it out, or name a dataset on the Hub"
    if location.revision is not None:
        raise UserError(f"data.revision is {location.revision}, but {root} is on this machine: {way_out}")
    if location.config_name is not None and (_is_saved(location) or not location.path.is_dir()):
        what = "was saved by save_to_disk" if _is_saved(location) else "names files"
        raise UserError(f"data.config_name is {location.config_name}, but {root} {what}: {way_out}")
    for file in location.files():
        with suppress(OSError):
            require_regular(file)


def _is_saved(location: Location) -> bool:
    """Whether the root is a dataset that was saved by ``save_to_disk``."""
    return any((location.path / name).is_file() for name in _SAVED)


def _load(location: Location) -> Any:  # noqa: ANN401  Dataset or DatasetDict
    from datasets import load_dataset, load_from_disk

    if _is_saved(location):
        try:
            return load_from_disk(str(location.path), keep_in_memory=False)
        except IndexError:  # the library writes such a split, but doesn't read it
            raise ValueError("one of its splits is empty") from None
    cache = location.cache and str(expanded(location.cache))
    load = partial(load_dataset, cache_dir=cache, keep_in_memory=False)
    if location.is_on_hub:
        return _of_commit(load(location.root, location.config_name, revision=_commit(location)), location)
    if location.path.is_dir():
        return load(str(location.path), location.config_name)
    files = location.files()
    # The library takes names for patterns.
    escaped = {split: [glob.escape(name) for name in names] for split, names in by_split(files).items()}
    return load(_reader(files), data_files=escaped)


def _commit(location: Location) -> str | None:
    """The commit of a revision. Raises what the Hub's client raises where it can't be asked for that of a branch."""
    if location.revision is None or _COMMIT.fullmatch(location.revision):
        return location.revision
    return dataset_commit(location.root, location.revision)


def _of_commit(found: Any, location: Location) -> Any:  # noqa: ANN401  DatasetDict
    """The dataset. Raises ValueError if a commit was named and it is of another one.

    Where the Hub can't be asked, the library takes any commit that its cache has.
    """
    commit = location.revision
    if commit is not None and _COMMIT.fullmatch(commit):
        for split in found.values():
            if not all(commit in each["filename"] for each in split.cache_files):
                raise ValueError(f"the cache has another commit than {commit}")
    return found


def _reader(files: list[Path]) -> str:
    """Reader of these files. Raises ValueError unless all are Parquet, or all Arrow."""
    extensions = {file.suffix.lower() for file in files}
    if len(extensions) != 1 or not extensions <= _READERS.keys():
        raise ValueError(f"files of {', '.join(sorted(extensions))}, but only .parquet or only .arrow are read")
    return _READERS[extensions.pop()]


def by_split(files: list[Path]) -> dict[str, list[str]]:
    """Sort files into splits by a word in their names, as in test-00000.parquet, or by their folders' names.

    Others are `train`.
    """
    found: dict[str, list[str]] = {}
    for file in files:
        word = _SPLIT.search(file.stem) or _SPLIT.fullmatch(file.parent.name)
        split = word[0].lower() if word else "train"
        found.setdefault({"valid": "validation", "val": "validation"}.get(split, split), []).append(str(file))
    return found


def _reason(error: BaseException) -> str:
    """The message of the first cause, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return one_line(error, _MOST_REASON)


def _way_out(location: Location) -> str:
    if location.is_on_hub:
        return "check its name and the network, or name files that were downloaded before"
    return "data.source datasets needs what the library datasets saves, Parquet or Arrow files, or folders of images"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep progress bars out of log files, and the Hub client's line about each retry."""
    from datasets import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    shown = not are_progress_bars_disabled()
    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        with quiet("huggingface_hub"):
            yield
    finally:
        if shown:
            enable_progress_bars()
