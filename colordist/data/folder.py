"""The source `folder`: any folder of photos, decoded once into one array and kept for the next start."""

import hashlib
import json
import logging
import os
import tempfile
import unicodedata
import warnings
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL
from numpy.typing import NDArray
from tqdm import tqdm

from colordist.config import UserError
from colordist.data.decode import EXTENSIONS, Undecodable, decode, fit
from colordist.data.source import ArraySplit, Labels, Source, check_classes

logger = logging.getLogger(__name__)

TEST_SHARE = 0.1  # of the images, where no folder test/ says which
_CACHE_VERSION = 2  # raise it when decoding, the split or the layout of the cache changes
_NAMES_SHOWN = 5

Skipped = dict[str, list[str]]  # reason -> names of the files


def folder(root: Path, classes: tuple[str, ...] | None, image_size: int, cache: Path | None) -> Source:
    """All photos below a folder, scaled and cropped to squares, in the order of their names.

    root: has train/ and test/, or else a tenth of the images, chosen by a hash of the name, is the test split.
    classes: names of subfolders (of train/ and test/, or of root) to take images from; None for all images.
    image_size: side of the squares in pixels.
    cache: folder that keeps the decoded images, so that the next start is quick; None for none. Any change of a
        file's name, size or time is noticed. Several processes may start at once.

    Files that cannot be used are skipped and named in the log. Raises UserError if there is no such folder or class,
    or no usable image for one of the splits.
    """
    root = root.expanduser()
    if not root.is_dir():
        raise UserError(f"data.root: {root} is not a folder; give the folder that holds your images")
    found = _find(root, classes)
    stem = cache.expanduser() / _digest(root, found.files, image_size) if cache else None
    content = _load(stem, image_size) if stem else None
    if content is None:
        content = _read(root, found, image_size)
        if stem and _store(stem, content):
            content = _load(stem, image_size) or content  # the map is shared between processes, our copy is not
    _report(root, content, found)
    train, test = np.split(content.images, [content.train])
    return Source("folder", ArraySplit(train), ArraySplit(test), _labels(content))


# What is there


@dataclass(frozen=True)
class _File:
    path: Path
    name: str  # relative to root, POSIX
    stamp: tuple[int, ...]  # size, time and permissions: whatever changes when the outcome of reading may change


@dataclass
class _Found:
    divided: bool  # by folders train/ and test/
    files: list[_File] = field(default_factory=list)
    skipped: Skipped = field(default_factory=lambda: defaultdict(list))
    others: int = 0  # files that are no images and do not claim to be

    def add(self, path: Path, name: str) -> None:
        """Take, skip or count one file. A folder that comes here could not be listed."""
        if os.path.isdir(path):
            self.skipped["unreadable folder"].append(name)
        elif path.name.startswith(".") or path.suffix.lower() not in EXTENSIONS:
            self.others += 1
        else:
            try:
                status = path.stat()
            except OSError as error:
                reason = "unreadable" if isinstance(error, PermissionError) else "broken link"
                self.skipped[reason].append(name)
            else:
                self.files.append(_File(path, name, (status.st_size, status.st_mtime_ns, status.st_mode)))


def _find(root: Path, classes: tuple[str, ...] | None) -> _Found:
    divided = (root / "train").is_dir() and (root / "test").is_dir()
    parts = [root / "train", root / "test"] if divided else [root]
    for part in parts:
        if not os.access(part, os.R_OK | os.X_OK):
            raise UserError(f"data.root: no permission to read {part}; change it, or give another folder")
    found = _Found(divided)
    for top in _tops(root, parts, classes):
        for path in _walk(top):
            found.add(path, _normal(path.relative_to(root).as_posix()))
    found.files.sort(key=lambda file: file.name)
    return found


def _tops(root: Path, parts: list[Path], classes: tuple[str, ...] | None) -> list[Path]:
    """The folders to search: all parts, or the wanted classes' folders within them."""
    if not classes:
        return parts
    folders = [child for part in parts for child in part.iterdir() if os.path.isdir(child) and child.name[0] != "."]
    if not folders:
        logger.warning("%s has no subfolders to name classes: data.classes is ignored, all its images are used", root)
        return parts
    wanted = {_normal(name) for name in classes}
    check_classes(sorted(wanted), sorted({_normal(child.name) for child in folders}), " and ".join(map(str, parts)))
    return [child for child in folders if _normal(child.name) in wanted]


def _walk(top: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """All files below a folder by name, links followed; a folder that cannot be listed is yielded itself.

    above: the folders that led here, since a link to one of them would never end.
    """
    here = top.resolve()
    if here in above:
        return
    try:
        children = sorted(top.iterdir())
    except OSError:
        yield top
        return
    for child in children:
        if not os.path.isdir(child):  # unlike child.is_dir(), False where looking is forbidden
            yield child
        elif not child.name.startswith("."):  # .thumbnails and the like hold copies
            yield from _walk(child, (*above, here))


def _normal(name: str) -> str:
    """The same name on every machine: some file systems store é as two characters."""
    return unicodedata.normalize("NFC", name)


def _hash(name: str) -> int:
    """A number below 2**64 that depends on nothing but the name."""
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "big")


# What is in it


@dataclass(frozen=True)
class _Content:
    images: NDArray[np.uint8]  # RGB [N, size, size, 3], the training images first
    train: int  # how many training images
    colourless: int  # how many of those are R == G == B everywhere
    classes: list[str]  # each image's; "" for one that lies in no class's folder
    skipped: Skipped


def _read(root: Path, found: _Found, size: int) -> _Content:
    """Decode all files on all cores."""
    images = np.empty((len(found.files), size, size, 3), np.uint8)

    def read(index: int) -> str | None:
        try:
            images[index] = fit(decode(found.files[index].path, size), size)
        except Undecodable as error:
            return error.reason
        return None

    # Decoders release the GIL, so threads are enough. What PIL warns of (a large image, an odd EXIF block) is either
    # harmless or comes back as a reason.
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.simplefilter("ignore")
        outcomes = pool.map(read, range(len(images)))
        reasons = list(tqdm(outcomes, "reading images", len(images), unit="image", leave=False, disable=None))

    skipped: Skipped = defaultdict(list)
    for file, reason in zip(found.files, reasons, strict=True):
        if reason is not None:
            skipped[reason].append(file.name)
    usable = [index for index, reason in enumerate(reasons) if reason is None]
    held_out = _held_out(root, found, [found.files[index].name for index in usable], skipped)
    order = [index for index, out in zip(usable, held_out, strict=True) if not out]
    train = len(order)
    order += [index for index, out in zip(usable, held_out, strict=True) if out]
    images = images[order]
    colourless = sum(bool((image == image[..., :1]).all()) for image in images[:train])
    classes = [_class_of(found.files[index].name, found.divided) for index in order]
    return _Content(images, train, colourless, classes, dict(skipped))


def _class_of(name: str, divided: bool) -> str:
    """The folder that an image lies in, counted from train/ and test/, or from the root; "" where there is none."""
    folders = name.split("/")[1 if divided else 0 : -1]
    return folders[0] if folders else ""


def _labels(content: _Content) -> Labels | None:
    """What the images show, where each lies in a class's folder."""
    names = sorted(set(content.classes))
    if "" in names:
        return None
    labels = np.searchsorted(names, content.classes).astype(np.int64)
    return Labels(tuple(names), labels[: content.train], labels[content.train :])


def _held_out(root: Path, found: _Found, names: list[str], skipped: Skipped) -> list[bool]:
    """For each usable image, whether it belongs to the test split. Both splits get at least one image."""
    remark = f"found {_list_skipped(_merge(found.skipped, skipped)) or 'no image files'} and {found.others} other files"
    if found.divided:
        held_out = [name.startswith("test/") for name in names]
        for part, empty in ("train", all(held_out)), ("test", not any(held_out)):
            if empty:
                raise UserError(
                    f"data.root: no usable image in {root / part} ({remark}); put some there, or name neither "
                    f"folder train/ nor test/ to have {TEST_SHARE:.0%} of all images held out"
                )
        return held_out
    if len(names) < 2:
        raise UserError(
            f"data.root: {len(names)} usable images in {root} ({remark}); "
            "training needs two or more, one of them to be scored on"
        )
    hashes = [_hash(name) for name in names]
    count = sum(value < TEST_SHARE * 2**64 for value in hashes)
    last = sorted(hashes)[min(max(count, 1), len(names) - 1) - 1]
    return [value <= last for value in hashes]


# What is said about it


def _report(root: Path, content: _Content, found: _Found) -> None:
    how = "folders train/ and test/" if found.divided else "split by name"
    counts = f"{content.train} training and {len(content.images) - content.train} test images"
    logger.info("%s: %s (%s), %d other files ignored", root, counts, how, found.others)
    if skipped := _merge(found.skipped, content.skipped):
        logger.warning("%s: skipped %s", root, _list_skipped(skipped))
    if content.colourless:
        logger.warning(
            "%s: %d of %d training images have no colour at all; they are kept, but teach nothing",
            root,
            content.colourless,
            content.train,
        )


def _merge(one: Skipped, other: Skipped) -> Skipped:
    return {reason: one.get(reason, []) + other.get(reason, []) for reason in sorted({*one, *other})}


def _list_skipped(skipped: Skipped) -> str:
    """For instance '2 truncated or damaged (a.jpg, b.jpg), 1 empty file (c.png)'."""
    parts = []
    for reason, names in skipped.items():
        shown = ", ".join(_printable(name) for name in names[:_NAMES_SHOWN])
        more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
        parts.append(f"{len(names)} {reason} ({shown}{more})")
    return ", ".join(parts)


def _printable(name: str) -> str:
    """A file name may hold line breaks, or bytes that are no text."""
    return "".join(character if character.isprintable() else "?" for character in name)


# What is kept of it: STEM.npy with the images, STEM.json with the rest. Both follow from the digest in the stem, so it
# does not matter which of several processes writes them.


def _digest(root: Path, files: list[_File], size: int) -> str:
    question = [_CACHE_VERSION, PIL.__version__, str(root.resolve()), size, [(file.name, file.stamp) for file in files]]
    return hashlib.blake2b(json.dumps(question).encode(), digest_size=16).hexdigest()


def _load(stem: Path, size: int) -> _Content | None:
    """What `_store` wrote, the images as a read-only map; None if it is not there or not whole."""
    try:
        about = json.loads(stem.with_suffix(".json").read_text("utf-8"))
        images = np.asarray(np.load(stem.with_suffix(".npy"), mmap_mode="r"))
        whole = images.dtype == np.uint8 and images.shape == (about["images"], size, size, 3)
        if whole and zlib.crc32(images.data) == about["crc32"]:
            return _Content(images, about["train"], about["colourless"], about["classes"], about["skipped"])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        pass
    logger.warning("the cache %s is damaged: reading the images again", stem.with_suffix(".npy"))
    return None


def _store(stem: Path, content: _Content) -> bool:
    """Write the cache and say whether that worked: training goes on without."""
    about = {
        "images": len(content.images),
        "train": content.train,
        "colourless": content.colourless,
        "classes": content.classes,
        "skipped": content.skipped,
        "crc32": zlib.crc32(content.images.data),
    }
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        _write(stem.with_suffix(".npy"), lambda file: np.save(file, content.images))
        _write(stem.with_suffix(".json"), lambda file: file.write(json.dumps(about).encode()))
    except OSError as error:
        logger.warning("cannot cache the decoded images in %s (%s): the next start will be as slow", stem.parent, error)
        return False
    return True


def _write(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file that is either whole or not there, whoever else writes it."""
    descriptor, scratch = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
    try:
        with open(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except BaseException:
        os.unlink(scratch)
        raise
