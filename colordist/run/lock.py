"""The lock of a run folder: one writer at a time, with a fencing token.

The writer holds a numbered file, ``lock/000007.json``, and writes heartbeats into it. The holder of the highest number
owns the folder; the number is the fencing token, which every checkpoint carries. A writer that is wrongly taken for
dead (suspended, disconnected, orphaned by a killed launcher) finds a higher number later, and writes no more.
"""

import dataclasses
import json
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from colordist.errors import RunError, UserError
from colordist.files.atomic import ABSENT, reading, sweep, temporary, writing_to
from colordist.files.documents import Malformed, parse_json
from colordist.files.opening import MOST_BYTES, NotRegular, TooLarge, read_regular
from colordist.files.paths import make_folder, remove_empty
from colordist.processes import UNKNOWN, Process

HEARTBEAT = 2.0
"""Seconds between two heartbeats."""
_ALIVE_AFTER = 8  # heartbeats after which a holder counts as alive: orphans of a killed launcher end within 5
_DEAD_AFTER = 5  # missing heartbeats, at least, after which a holder counts as dead


class LockLost(RunError):
    """This process no longer holds the lock."""


@dataclass(frozen=True)
class Holder:
    """The holder that a lock file names; defaults for one that can't be read."""

    fence: int
    process: Process = UNKNOWN
    heartbeat: int = 0
    released: bool = False

    def __str__(self) -> str:
        return f"process {self.process.pid} on {self.process.host}"

    @property
    def is_dead(self) -> bool:
        """Whether it released the lock, or is known to have ended."""
        return self.released or self.process.has_ended()


class _Content(msgspec.Struct):
    """The content of a lock file."""

    host: str
    machine: str
    pid: Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
    started: float
    heartbeat: Annotated[int, msgspec.Meta(ge=0)]
    released: bool


class Lock:
    """The lock of a run folder, held by this process."""

    def __init__(self, folder: Path, fence: int, made: list[Path]) -> None:
        """made: folders that weren't there before."""
        self.folder = folder
        self.fence = fence
        self._made = made
        self._heartbeats = 0
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._send_heartbeats, daemon=True, name="lock")

    @classmethod
    def acquire(cls, run: Path, heartbeat_timeout: float, log: Callable[[str], None] = lambda line: None) -> "Lock":
        """Take the lock of a run folder: at once if the previous holder is known to have ended, else after a timeout.

        heartbeat_timeout: seconds without a heartbeat after which the holder counts as dead. Raises UserError if it is
        alive, and where the folder isn't writable; RunError where the disk fails.
        """
        folder, heartbeat_timeout = run / "lock", max(heartbeat_timeout, _DEAD_AFTER * HEARTBEAT)
        with writing_to(run, "name another --run.dir"):
            made: list[Path] = []
            while True:
                made = make_folder(folder) or made
                holder = _holder(folder)
                if holder is not None and not holder.is_dead:
                    log(
                        f"{holder} held the lock of {run} and may be alive: waiting {heartbeat_timeout:.0f} s for "
                        "a heartbeat"
                    )
                    _wait_for_end(folder, holder, heartbeat_timeout)
                lock = cls(folder, holder.fence + 1 if holder else 1, made)
                if lock._take():
                    return lock

    def _take(self) -> bool:
        """Create the lock file. Returns False if another process was faster."""
        try:
            self._file.touch(exist_ok=False)
        except (FileExistsError, FileNotFoundError):  # the latter by ``withdraw``
            return False
        if _highest(self.folder) > self.fence:  # others have taken and released it in the meantime
            self._file.unlink(missing_ok=True)
            return False
        try:
            self._heartbeat()
        except OSError:
            self._file.unlink(missing_ok=True)  # an empty one would make the next process wait for no holder
            raise
        sweep(self.folder)
        for file in self.folder.glob("*.json"):
            if file.stem.isdecimal() and int(file.stem) < self.fence:
                file.unlink(missing_ok=True)
        self._thread.start()
        return True

    def check_fence(self) -> None:
        """Raise LockLost if another process has taken over the run, or the lock is gone; RunError if it can't be read.

        It is gone when the file system is unmounted: what is written then would land below the mount point.
        """
        with reading(self.folder):
            highest = _highest(self.folder)
        run = self.folder.parent
        if highest > self.fence:
            raise LockLost(f"{_holder(self.folder)} has taken over the run in {run}: this one ends here")
        if highest < self.fence:
            raise LockLost(f"{run} has lost {self._file}: once it is there (mounted?), the same command continues")

    def release(self) -> None:
        """Release the lock, so that the next writer needn't wait."""
        self._released.set()
        self._thread.join()
        with suppress(OSError):  # a full disk: then the next writer waits for the timeout
            if _highest(self.folder) == self.fence:
                self._heartbeat()

    def withdraw(self) -> None:
        """Release the lock. Of a run that hasn't begun, remove the folders that were made for it."""
        self.release()
        with suppress(OSError):
            if (
                self._made
                and _highest(self.folder) == self.fence
                and os.listdir(self.folder.parent) == [self.folder.name]
            ):
                self._file.unlink()
                remove_empty(self._made)

    @property
    def _file(self) -> Path:
        return self.folder / f"{self.fence:06d}.json"

    def _send_heartbeats(self) -> None:
        while not self._released.wait(HEARTBEAT):
            with suppress(OSError):  # a full disk is reported by the next checkpoint
                if _highest(self.folder) > self.fence:
                    return
                self._heartbeat()

    def _heartbeat(self) -> None:
        """Write a heartbeat."""
        self._heartbeats += 1
        about = dataclasses.asdict(Process.current())
        about |= {"heartbeat": self._heartbeats, "released": self._released.is_set()}
        draft = temporary(self._file)
        draft.write_text(json.dumps(about) + "\n", "utf-8")
        os.replace(draft, self._file)


def _highest(folder: Path) -> int:
    """The highest fencing token; 0 if there is none. Raises OSError where the folder can't be read."""
    try:
        names = os.listdir(folder)  # glob takes a failed read for an empty folder, from Python 3.13 on
    except ABSENT:
        return 0
    numbers = (name.removesuffix(".json") for name in names if name.endswith(".json"))
    return max((int(number) for number in numbers if number.isdecimal()), default=0)


def _holder(folder: Path) -> Holder | None:
    """The holder of the highest fencing token, None if there is none."""
    fence = _highest(folder)
    if not fence:
        return None
    try:
        about = parse_json(read_regular(folder / f"{fence:06d}.json", MOST_BYTES), _Content)
    except (OSError, Malformed, NotRegular, TooLarge):  # being created, or damaged
        return Holder(fence)
    process = Process(about.host, about.machine, about.pid, about.started)
    return Holder(fence, process, about.heartbeat, about.released)


def _wait_for_end(folder: Path, holder: Holder, heartbeat_timeout: float) -> None:
    """Return when a holder has ended, or sent no heartbeat until the timeout. Raises UserError if it is alive."""
    deadline = time.monotonic() + heartbeat_timeout
    heartbeats = 0
    while time.monotonic() < deadline:
        time.sleep(min(0.2, heartbeat_timeout / 10))
        now = _holder(folder)
        if now is None or now.fence != holder.fence or now.is_dead:
            return
        if now.heartbeat != holder.heartbeat:
            heartbeats, holder = heartbeats + 1, now
            deadline = time.monotonic() + heartbeat_timeout
        if heartbeats == _ALIVE_AFTER:
            raise UserError(f"{holder} is writing into {folder.parent}: end it first, or name another --run.dir")
