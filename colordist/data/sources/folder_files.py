"""Find the image files below a folder and split them into training and test, for the source `folder`."""

import hashlib
import json
import logging
import os
import unicodedata
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from colordist.data.decode import EXTENSIONS, Undecodable
from colordist.data.source import check_classes
from colordist.errors import UserError
from colordist.files.atomic import is_failing, reading

logger = logging.getLogger(__name__)

TEST_SHARE = 0.1  # of the images, without folders train/ and test/
_NAMES_SHOWN = 5

Skipped = dict[str, list[str]]  # reason -> names of the files
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class File:
    """A file with an image's extension."""

    path: Path
    name: str  # relative to root, POSIX
    stamp: tuple[int, ...]  # size, modification time, permissions: any of them may change the result of reading


@dataclass
class Found:
    """Result of a search below a folder."""

    has_split_folders: bool  # has folders train/ and test/
    files: list[File] = field(default_factory=list)
    skipped: Skipped = field(default_factory=lambda: defaultdict(list))
    others: int = 0  # files without an image's extension

    def add(self, entry: "os.DirEntry[str]", name: str) -> None:
        """Add, skip or count one file."""
        if entry.name.startswith(".") or os.path.splitext(entry.name)[1].lower() not in EXTENSIONS:
            self.others += 1
            return
        try:
            status = entry.stat()
        except OSError as error:
            if is_failing(error):
                raise
            reason = "unreadable" if isinstance(error, PermissionError) else "broken link"
            self.skipped[reason].append(name)
        else:
            self.files.append(File(Path(entry.path), name, (status.st_size, status.st_mtime_ns, status.st_mode)))


def find(root: Path, classes: tuple[str, ...] | None) -> Found:
    """Find all image files below a folder, or in some of its classes, sorted by name.

    Raises UserError, and RunError where the disk fails.
    """
    with reading(root):
        return _find(root, classes)


def _find(root: Path, classes: tuple[str, ...] | None) -> Found:
    if not root.is_dir():
        raise UserError(f"data.root: {root} is not a folder; give the folder that holds your images")
    has_split_folders = (root / "train").is_dir() and (root / "test").is_dir()
    parts = [root / "train", root / "test"] if has_split_folders else [root]
    for part in parts:
        if not os.access(part, os.R_OK | os.X_OK):
            raise UserError(f"data.root: no permission to read {part}; change it, or give another folder")
    found = Found(has_split_folders)
    for top in _tops(root, parts, classes):
        _search(str(top), "".join(f"{part}/" for part in top.relative_to(root).parts), found)
    found.files.sort(key=lambda file: file.name)
    return found


def _tops(root: Path, parts: list[Path], classes: tuple[str, ...] | None) -> list[Path]:
    """Folders to search: all parts, or the requested classes' folders within them."""
    if not classes:
        return parts
    folders = [child for part in parts for child in part.iterdir() if os.path.isdir(child) and child.name[0] != "."]
    if not folders:
        logger.warning("%s has no subfolders to name classes: data.classes is ignored, all its images are used", root)
        return parts
    requested = {_normal(name) for name in classes}
    check_classes(sorted(requested), sorted({_normal(child.name) for child in folders}), " and ".join(map(str, parts)))
    return [child for child in folders if _normal(child.name) in requested]


def _search(folder: str, name: str, found: Found, above: tuple[str, ...] = ()) -> None:
    """Add all files below a folder, following links. Without pathlib, which takes most of the time for a million files.

    name: the folder's, relative to the root, with a slash at the end; empty for the root. above: the folders on the way
    here; a link to one of them is a cycle.
    """
    here = os.path.realpath(folder)
    if here in above:
        return
    try:
        with os.scandir(folder) as entries:
            children = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        if is_failing(error):
            raise
        found.skipped["unreadable folder"].append(_normal(name.rstrip("/")))
        return
    for child in children:
        if not _is_folder(child):
            found.add(child, _normal(name + child.name))
        elif not child.name.startswith("."):  # .thumbnails and the like have copies
            _search(child.path, f"{name}{child.name}/", found, (*above, here))


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    """Whether this is a folder, or a link to one; False where that can't be found out, and the disk works."""
    try:
        return entry.is_dir()
    except OSError as error:
        if is_failing(error):
            raise
        return False


def _normal(name: str) -> str:
    """Unicode normal form: some file systems store é as two characters."""
    return unicodedata.normalize("NFC", name)


def name_hash(name: str) -> int:
    """64-bit hash of a name, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "big")


def listing_digest(rows: list[tuple[object, ...]]) -> str:
    """Digest of a listing: of names, sizes, and what else tells the files apart."""
    return hashlib.blake2b(json.dumps(rows).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def on_all_cores(read: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Map a function that opens or decodes images, with results in order.

    Decoders release the GIL, so threads are enough. PIL's warnings (large images, odd EXIF blocks) are harmless, or
    followed by an error.
    """
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.simplefilter("ignore")
        yield from pool.map(read, items)


def read_and_split(root: Path, found: Found, read: Callable[[int], object]) -> tuple[list[int], list[int], Skipped]:
    """Split the files into training and test: indices into ``found.files``, and the unusable files with reasons.

    read: called with each index, on all cores; raises Undecodable for an unusable file. Raises UserError for an empty
    split, RunError where the disk fails: without its images this would be another run.
    """

    def outcome(index: int) -> str | None:
        try:
            read(index)
        except (Undecodable, OSError) as error:
            cause = error if isinstance(error, OSError) else error.__cause__
            if is_failing(cause):
                with reading(found.files[index].path):
                    raise cause from None
            return error.reason if isinstance(error, Undecodable) else "unreadable"
        return None

    outcomes, count = on_all_cores(outcome, range(len(found.files))), len(found.files)
    reasons = list(tqdm(outcomes, "reading images", count, unit="image", leave=False, disable=None))
    skipped: Skipped = defaultdict(list)
    for file, reason in zip(found.files, reasons, strict=True):
        if reason is not None:
            skipped[reason].append(file.name)
    usable = [index for index, reason in enumerate(reasons) if reason is None]
    held_out = _held_out(root, found, [found.files[index].name for index in usable], skipped)
    train = [index for index, out in zip(usable, held_out, strict=True) if not out]
    test = [index for index, out in zip(usable, held_out, strict=True) if out]
    return train, test, dict(skipped)


def _held_out(root: Path, found: Found, names: list[str], skipped: Skipped) -> list[bool]:
    """Whether each usable image belongs to the test split. Both splits get at least one image."""
    summary = f"found {list_skipped(merge(found.skipped, skipped)) or 'no image files'} and {found.others} other files"
    if found.has_split_folders:
        held_out = [name.startswith("test/") for name in names]
        for part, empty in ("train", all(held_out)), ("test", not any(held_out)):
            if empty:
                raise UserError(
                    f"data.root: no usable image in {root / part} ({summary}); put some there, or name neither "
                    f"folder train/ nor test/ to have {TEST_SHARE:.0%} of all images held out"
                )
        return held_out
    if len(names) < 2:
        raise UserError(
            f"data.root: {len(names)} usable images in {root} ({summary}); "
            "training needs two or more, one of them for the test split"
        )
    hashes = [name_hash(name) for name in names]
    count = sum(value < TEST_SHARE * 2**64 for value in hashes)
    last = sorted(hashes)[min(max(count, 1), len(names) - 1) - 1]
    return [value <= last for value in hashes]


def merge(one: Skipped, other: Skipped) -> Skipped:
    """Union of skipped files, sorted by reason."""
    return {reason: one.get(reason, []) + other.get(reason, []) for reason in sorted({*one, *other})}


def list_skipped(skipped: Skipped) -> str:
    """For instance '2 truncated or damaged (a.jpg, b.jpg), 1 empty file (c.png)'."""
    parts = []
    for reason, names in skipped.items():
        shown = ", ".join(printable(name) for name in names[:_NAMES_SHOWN])
        more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
        parts.append(f"{len(names)} {reason} ({shown}{more})")
    return ", ".join(parts)


def printable(name: str) -> str:
    """Replace unprintable characters of a file name."""
    return "".join(character if character.isprintable() else "?" for character in name)
