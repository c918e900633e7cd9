"""A FUSE file system that shows a folder, and fails or hangs on request: ``python failing_mount.py FOLDER MOUNTPOINT``.

It reads a rule per line from stdin, as JSON, and answers each on stdout by ``met N``, the number of operations that the
previous one has met. The first operation that is held up is announced by a line ``held PATH``. See ``disk.Rule``.

An operation that is held up ends with EINTR once the process that waits for it is killed, as on NFS.
"""

import errno
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import mfusepy

_ATTRIBUTES = ("atime", "ctime", "gid", "mode", "mtime", "nlink", "size", "uid", "blocks", "ino")
_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Faults:
    """The rule in force."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._answers = threading.Lock()
        self._rule: dict[str, Any] = {}
        self._met = self._number = 0
        self._announced = False

    def listen(self) -> None:
        """Follow the rules on stdin until it is closed."""
        for line in sys.stdin:
            with self._changed:
                met, self._met = self._met, 0
                self._rule, self._announced = json.loads(line), False
                self._number += 1
                self._changed.notify_all()
            self._say(f"met {met}")

    def meet(self, operation: str, path: str) -> None:
        """Fail, delay or hold up an operation, if the rule says so."""
        with self._changed:
            rule, number = self._rule, self._number
            if not rule or operation not in rule["operations"] or not re.search(rule["paths"], path):
                return
            self._met += 1
            if self._met <= rule["after"]:
                return
            announce = rule["hold"] and not self._announced
            self._announced |= announce
        if announce:
            self._say(f"held {path}")
        if rule["hold"]:
            self._wait(number)
        time.sleep(rule["delay"])
        if rule["code"]:
            raise OSError(rule["code"], os.strerror(rule["code"]))

    def _wait(self, number: int) -> None:
        """Wait for another rule."""
        with self._changed:
            while self._number == number:
                self._changed.wait(0.05)
                if mfusepy._libfuse.fuse_interrupted():
                    raise OSError(errno.EINTR, os.strerror(errno.EINTR))

    def _say(self, line: str) -> None:
        with self._answers:
            print(line, flush=True)


class Passthrough(mfusepy.Operations):  # type: ignore[misc]  # not typed
    """A folder, with faults."""

    use_ns = True

    def __init__(self, folder: str, faults: Faults) -> None:
        self._folder, self._meet = folder, faults.meet

    def _on(self, operation: str, path: str, work: Callable[[str], Any]) -> Any:  # noqa: ANN401
        self._meet(operation, path)
        return work(self._folder + path)

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        found = self._on("stat", path, os.lstat)
        return {
            f"st_{name}": getattr(found, f"st_{name}_ns" if name.endswith("time") else f"st_{name}")
            for name in _ATTRIBUTES
        }

    def readdir(self, path: str, fh: int) -> list[str]:
        return [".", "..", *self._on("list", path, os.listdir)]

    def readlink(self, path: str) -> str:
        return str(self._on("read", path, os.readlink))

    def statfs(self, path: str) -> dict[str, int]:
        found = os.statvfs(self._folder)
        return {name: getattr(found, name) for name in dir(found) if name.startswith("f_") and name != "f_fsid"}

    def open(self, path: str, flags: int) -> int:
        return int(self._on("write" if flags & _WRITE_FLAGS else "open", path, lambda real: os.open(real, flags)))

    def create(self, path: str, mode: int, fi: Any = None) -> int:  # noqa: ANN401  as in the base class
        return int(self._on("create", path, lambda real: os.open(real, os.O_RDWR | os.O_CREAT | os.O_TRUNC, mode)))

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return bytes(self._on("read", path, lambda _: os.pread(fh, size, offset)))

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        try:
            self._meet("write", path)
        except OSError:
            os.pwrite(fh, data[: len(data) // 2], offset)  # a disk that fills up takes what fits
            raise
        return os.pwrite(fh, data, offset)

    def truncate(self, path: str, length: int, fh: int | None = None) -> None:
        self._on("write", path, lambda real: os.truncate(real, length))

    def fsync(self, path: str, datasync: int, fh: int) -> None:
        self._on("fsync", path, lambda _: None)

    def fsyncdir(self, path: str, datasync: int, fh: int) -> None:
        self._on("fsync", path, lambda _: None)

    def release(self, path: str, fh: int) -> None:
        os.close(fh)

    def mkdir(self, path: str, mode: int) -> None:
        self._on("create", path, lambda real: os.mkdir(real, mode))

    def symlink(self, target: str, source: str) -> None:
        self._on("create", target, lambda real: os.symlink(source, real))

    def rename(self, old: str, new: str) -> None:
        self._on("change", new, lambda real: os.rename(self._folder + old, real))

    def unlink(self, path: str) -> None:
        self._on("change", path, os.unlink)

    def rmdir(self, path: str) -> None:
        self._on("change", path, os.rmdir)

    def chmod(self, path: str, mode: int) -> None:
        self._on("change", path, lambda real: os.chmod(real, mode))

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> None:
        self._on("change", path, lambda real: os.utime(real, ns=times) if times else os.utime(real))


class Mount(mfusepy.FUSE):  # type: ignore[misc]  # not typed
    """As mfusepy's, which ignores the flags of renameat2."""

    def rename_fuse_3(self, old: bytes, new: bytes, flags: int) -> int:
        return -errno.EINVAL if flags else int(self.rename_fuse_2(old, new) or 0)


if __name__ == "__main__":
    faults = Faults()
    threading.Thread(target=faults.listen, daemon=True).start()
    Mount(
        Passthrough(sys.argv[1], faults),
        sys.argv[2],
        foreground=True,
        direct_io=True,
        attr_timeout=0,
        entry_timeout=0,
        negative_timeout=0,
    )
