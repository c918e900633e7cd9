"""Storage of shards: a local folder, or an http(s) URL from which each is downloaded on first use."""

import fcntl
import hashlib
import http.client
import os
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path

from colordist.config import RunError, UserError
from colordist.data.sources.shard_index import NAME, Index, Shard

_MOST_OPEN = 64  # files: a process may have a few hundred
_TRIES = 3
_TIMEOUT = 10.0  # seconds without a byte from the server
_CHUNK = 2**20


class Unavailable(Exception):
    """A file can't be downloaded; the text says why."""


@dataclass(frozen=True, eq=False)
class ShardStore:
    """A folder of shards, with its open files."""

    root: str
    """Folder or URL."""
    cache: Path
    """Folder for downloaded shards, named by SHA-256."""
    opened: dict[str, FileIO] = field(default_factory=dict)

    @property
    def is_remote(self) -> bool:
        """Whether shards are downloaded."""
        return "://" in self.root

    def index(self) -> tuple[Index, str]:
        """Read the index and its SHA-256, and check that a local folder's shards exist and have the right size.

        Raises UserError for an unreadable or damaged index, and for a missing or damaged shard.
        """
        where = f"{self.root.rstrip('/')}/{NAME}"
        way_out = "data.source shards needs a folder written by python -m colordist.data.pack"
        try:
            text = b"".join(_download_chunks(where)) if self.is_remote else Path(where).expanduser().read_bytes()
        except (Unavailable, OSError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"data.root: {where} can't be read ({reason}); {way_out}") from None
        try:
            index = Index.read(text)
        except ValueError as error:
            raise UserError(
                f"data.root: {where} is damaged ({' '.join(str(error).split())[:200]}); {way_out}"
            ) from None
        if not self.is_remote:
            for shard in index.shards:
                self._check_size(shard)
        return index, hashlib.sha256(text).hexdigest()

    def _check_size(self, shard: Shard) -> None:
        file = self._local(shard)
        try:
            size = file.stat().st_size
        except OSError as error:
            raise UserError(f"data.root: {file} can't be read ({error.strerror}); {NAME} names it") from None
        if size != shard.bytes:
            raise UserError(f"data.root: {file} has {size} bytes, but {NAME} says {shard.bytes}: copy it again")

    def read(self, shard: Shard, offset: int, size: int) -> bytes:
        """Read ``size`` bytes of a shard. Raises RunError if that fails."""
        try:
            content = os.pread(self._file(shard).fileno(), size, offset)
        except (Unavailable, OSError) as error:
            raise RunError(
                f"the shard {shard.name} of {self.root} can't be read ({error}): once it can be, the same command "
                "continues"
            ) from None
        if len(content) < size:
            raise RunError(f"the shard {shard.name} of {self.root} is truncated: restore the complete file")
        return content

    def _file(self, shard: Shard) -> FileIO:
        if shard.name not in self.opened:
            if len(self.opened) == _MOST_OPEN:
                self.opened.pop(next(iter(self.opened))).close()  # the oldest
            self.opened[shard.name] = FileIO(self._cached(shard) if self.is_remote else self._local(shard))
        return self.opened[shard.name]

    def _local(self, shard: Shard) -> Path:
        return Path(self.root).expanduser() / shard.name

    def _cached(self, shard: Shard) -> Path:
        """Path of a complete downloaded shard. Concurrent processes wait for the one that downloads it."""
        path = self.cache / f"{shard.sha256}.tar"
        if path.exists():
            return path
        self.cache.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_suffix(".lock")):
            if not path.exists():
                _download(f"{self.root.rstrip('/')}/{shard.name}", path, shard)
        return path


@contextmanager
def _locked(lock: Path) -> Iterator[None]:
    """Lock out other processes. File systems without locks let several in: their writes are atomic and equal."""
    with lock.open("w") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _download(url: str, path: Path, shard: Shard) -> None:
    """Download a shard atomically. Raises Unavailable."""
    for attempt in range(_TRIES):
        descriptor, scratch = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
        try:
            digest = hashlib.sha256()
            with open(descriptor, "wb") as file:
                for chunk in _download_chunks(url):
                    digest.update(chunk)
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            if digest.hexdigest() != shard.sha256:
                raise Unavailable(f"{url} doesn't have the SHA-256 in {NAME}")
            os.replace(scratch, path)
            return
        except Unavailable:
            os.unlink(scratch)
            if attempt == _TRIES - 1:
                raise
            time.sleep(attempt)
        except BaseException:
            os.unlink(scratch)
            raise


def _download_chunks(url: str) -> Iterator[bytes]:
    """Content of a URL, in chunks. Raises Unavailable."""
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise Unavailable(f"{url} is no http(s) address")
    # Not urlopen, which also follows redirects to ftp.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    try:
        with opener.open(url, timeout=_TIMEOUT) as response:
            while chunk := response.read(_CHUNK):
                yield chunk
    except urllib.error.HTTPError as error:
        raise Unavailable(f"{url}: {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unavailable(f"{url}: {' '.join(str(getattr(error, 'reason', error)).split())}") from None
