"""Pack a folder of images for the source `shards`: ``python -m colordist.data.pack FOLDER -o DIR``.

Training and test split are those of the source `folder`. DIR gets tar files in WebDataset format and ``index.json``.
Training images are sorted by a hash of their names, so that each shard is a random sample; test images by name.
"""

import argparse
import hashlib
import io
import logging
import os
import shutil
import sys
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from tqdm import tqdm

from colordist.config import UserError
from colordist.data.decode import decode, portable_extension
from colordist.data.sources.folder_files import (
    Found,
    class_of,
    find,
    list_skipped,
    merge,
    name_hash,
    printable,
    read_and_split,
)
from colordist.data.sources.shard_index import NAME, Index, Shard

log = logging.getLogger(__name__)


def pack(root: Path, out: Path, shard_bytes: int = 64 * 10**6) -> Index:
    """Pack the images below a folder into shards.

    root: as for the source `folder`. out: must not exist; is written completely or not at all. shard_bytes: size at
    which a shard is closed. Raises UserError.
    """
    root, out = root.expanduser(), out.expanduser()
    if out.exists():
        raise UserError(f"-o {out} exists already: name another folder, or remove it")
    found = find(root, None)
    # At the smallest size, which is enough to find damaged files.
    train, test, skipped = read_and_split(root, found, lambda index: decode(found.files[index].path, 16))
    if all_skipped := merge(found.skipped, skipped):
        log.warning("%s: skipped %s", root, list_skipped(all_skipped))
    train.sort(key=lambda index: (name_hash(found.files[index].name), found.files[index].name))
    scratch = out.with_name(f"{out.name}.tmp")
    try:
        scratch.mkdir(parents=True)
    except FileExistsError:
        raise UserError(f"{scratch} exists: remove it, unless another process is packing into it") from None
    except OSError as error:
        raise UserError(f"-o {out} can't be written ({error.strerror}): name another folder") from None
    try:
        names = sorted({class_of(found.files[index].name, found.has_split_folders) for index in train + test})
        index = Index([] if "" in names else names, [])
        index.shards.extend(_Packer(scratch, found, index.classes, "train", shard_bytes).pack(train))
        index.shards.extend(_Packer(scratch, found, index.classes, "test", shard_bytes).pack(test))
        (scratch / NAME).write_text(index.text())
        scratch.rename(out)
    except BaseException as error:
        shutil.rmtree(scratch, ignore_errors=True)
        if isinstance(error, OSError):
            raise UserError(f"-o {out} was not written ({error}): fix that, and pack again") from None
        raise
    return index


@dataclass
class _Packer:
    """Writer of one split's shards."""

    folder: Path
    found: Found
    classes: list[str]
    split: Literal["train", "test"]
    shard_bytes: int
    shards: list[Shard] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)

    def pack(self, indices: Iterable[int]) -> list[Shard]:
        """Write files, given as indices into ``found.files``, in this order."""
        waiting = list(reversed(list(indices)))
        with tqdm(total=len(waiting), desc=f"packing {self.split}", unit="image", leave=False, disable=None) as bar:
            while waiting:
                shard = Shard(self.split, f"{self.split}-{len(self.shards):06d}.tar")
                path = self.folder / shard.name
                with path.open("wb") as file:
                    with tarfile.open(fileobj=file, mode="w") as tar:
                        while waiting and tar.offset < self.shard_bytes:
                            self._add(waiting.pop(), tar, shard)
                            bar.update()
                    file.flush()
                    os.fsync(file.fileno())
                with path.open("rb") as file:
                    shard.bytes, shard.sha256 = path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()
                self.shards.append(shard)
        return self.shards

    def _add(self, index: int, tar: tarfile.TarFile, shard: Shard) -> None:
        file = self.found.files[index]
        content = file.path.read_bytes()
        if (extension := portable_extension(content)) is None:
            buffer = io.BytesIO()
            decode(file.path).save(buffer, "PNG")
            content, extension = buffer.getvalue(), "png"
        member = tarfile.TarInfo(self._key(file.name, extension))
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
        padded = -(-len(content) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        shard.keys.append(member.name)
        shard.offsets.append(tar.offset - padded)
        shard.sizes.append(len(content))
        if self.classes:
            shard.classes.append(self.classes.index(class_of(file.name, self.found.has_split_folders)))

    def _key(self, name: str, extension: str) -> str:
        """Unique name in the tar file, with a single dot: WebDataset's key ends at the first one."""
        path = PurePosixPath(printable(name))
        parts = path.parts[1:] if self.found.has_split_folders else path.parts
        stem = "/".join([*parts[:-1], PurePosixPath(parts[-1]).stem.replace(".", "_")])
        key, number = stem, 1
        while key in self.keys:
            number += 1
            key = f"{stem}-{number}"
        self.keys.add(key)
        return f"{key}.{extension}"


def main(arguments: list[str] | None = None) -> None:
    """Pack, and print the counts. Exit code 2 for a user's mistake."""
    parser = argparse.ArgumentParser("python -m colordist.data.pack", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of images, as for data.source folder")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder to create")
    parser.add_argument("--shard_mb", type=float, default=64, help="shard size in MB")
    options = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s")
    try:
        if not options.shard_mb > 0:
            raise UserError(f"--shard_mb is {options.shard_mb}, but must be above 0: try --shard_mb 64")
        index = pack(options.folder, options.output, int(options.shard_mb * 10**6))
    except UserError as error:
        print(f"colordist: {error}", file=sys.stderr)
        sys.exit(2)
    for split in ("train", "test"):
        counts = [len(shard.keys) for shard in index.shards if shard.split == split]
        print(f"{options.output}: {sum(counts):,} {split} images in {len(counts)} shards")


if __name__ == "__main__":
    main()
