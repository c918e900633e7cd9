"""A disk that fails on request: a mounted folder, and the faults that it is to have."""

import errno
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes.util import find_library
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from shutil import which

WRITES = ("create", "write", "fsync")
"""Operations that need space."""
CHANGES = (*WRITES, "change")
_TIMEOUT = 60.0  # seconds
READS = ("stat", "list", "open", "read")


@dataclass(frozen=True)
class Rule:
    """What happens to which operations."""

    operations: tuple[str, ...] = (*CHANGES, *READS)
    """Kinds: see ``failing_mount.Passthrough``."""
    paths: str = ""
    """Regular expression that finds the paths, from ``/`` at the mount point."""
    after: int = 0
    """Number of such operations that pass before."""
    code: int = 0
    """Error code; 0: none."""
    delay: float = 0.0
    """Seconds that each takes."""
    hold: bool = False
    """Hold them up until there is another rule."""


FULL = Rule(WRITES, code=errno.ENOSPC)
QUOTA = Rule(WRITES, code=errno.EDQUOT)
READ_ONLY = Rule(CHANGES, code=errno.EROFS)
BROKEN = Rule((*CHANGES, "read"), code=errno.EIO)
STALE = Rule(code=errno.ESTALE)
HELD = Rule(CHANGES, hold=True)
SLOW = Rule(delay=0.002)


def why_not() -> str | None:
    """Why no file system can be mounted here; None if one can."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "needs /dev/fuse"
    if which("fusermount3") is None:
        return "needs fusermount3, e.g. Debian's package fuse3"
    if os.geteuid() != 0:
        return "needs root, to mount"
    if find_spec("mfusepy") is None or find_library("fuse3") is None:
        return "needs the package mfusepy, and libfuse3"
    return None


class Disk:
    """A folder, mounted with faults."""

    def __init__(self, folder: Path, path: Path) -> None:
        """folder: where the files lie. path: where they are seen."""
        self.folder, self.path = folder, path
        folder.mkdir()
        path.mkdir()
        self.mount()

    def mount(self) -> None:
        """Mount it, without faults."""
        program = Path(__file__).with_name("failing_mount.py")
        self._process = subprocess.Popen(
            [sys.executable, program, self.folder, self.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"FUSE_LIBRARY_NAME": "fuse3"},
        )
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._held: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()
        self.mend()  # answered before it is mounted
        while not os.path.ismount(self.path):
            if self._process.poll() is not None:
                raise OSError(f"{self.path} can't be mounted")

    def follow(self, rule: Rule | None) -> int:
        """Follow a rule from now on. Returns the number of operations that the previous one has met."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(rule) if rule else {}) + "\n")
        self._process.stdin.flush()
        return int(self._answers.get(timeout=_TIMEOUT))

    def mend(self) -> int:
        """Work without faults from now on. Returns as ``follow``."""
        return self.follow(None)

    def wait_held(self) -> str:
        """Wait until an operation is held up. Returns the path in question."""
        return self._held.get(timeout=_TIMEOUT)

    @contextmanager
    def once_held(self, work: Callable[[], object]) -> Iterator[None]:
        """Context in which another thread does some work as soon as an operation is held up."""

        def wait_and_work() -> None:
            self.wait_held()
            work()

        thread = threading.Thread(target=wait_and_work)
        thread.start()
        yield
        thread.join()

    def vanish(self) -> None:
        """Kill the file system: from now on its transport endpoint is not connected."""
        self._process.kill()
        self._end()

    def unmount(self) -> None:
        """Unmount it, even while files are open. The folder below it is empty."""
        subprocess.run(["umount", "--lazy", self.path], check=True, capture_output=True)

    def close(self) -> None:
        """Unmount it, and end its process."""
        subprocess.run(["umount", "--lazy", self.path], check=False, capture_output=True)
        self._process.kill()
        self._end()

    def _end(self) -> None:
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            kind, _, text = line.strip().partition(" ")
            (self._answers if kind == "met" else self._held).put(text)
