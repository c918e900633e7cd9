"""One writer at a time in a run folder.

Whoever writes holds a numbered file, ``lock/000007.json``, and renews it now and then. The highest number is the
owner: a fencing number, which every checkpoint carries. A process that is taken for dead and isn't (paused, cut off
from the network, left behind by a killed launcher) finds a higher number than its own when it wakes, and
writes no more.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from colordist.config import RunError, UserError
from colordist.files.atomic import temporary

HEARTBEAT = 2.0
"""Seconds between two signs of life."""
_SIGNS = 8  # of life, after which a holder is believed to live on: what a killed launcher has left ends within 5
_LEAST = 5  # beats that must be missing before it is taken for dead


@dataclass(frozen=True)
class Holder:
    """Who wrote a lock file. Of one that can't be read nothing is known."""

    fence: int
    host: str = "?"
    machine: str = "?"
    """Stands for a kernel that runs and the processes that it shows: there, process numbers can be compared."""
    pid: int = 0
    started: float = 0.0
    """Seconds since the machine's start."""
    heartbeat: int = 0
    released: bool = False

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    @property
    def is_dead(self) -> bool:
        """Whether it is known to be over. Of a process elsewhere nothing is known."""
        if self.released:
            return True
        if self.machine != _machine():
            return False
        try:
            process = psutil.Process(self.pid)
            return abs(_started(process) - self.started) > 1 or process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True
        except (psutil.Error, ValueError):  # another user's; or no number of a process
            return False


class Lock:
    """The right to write into a run folder."""

    def __init__(self, folder: Path, fence: int) -> None:
        self.folder = folder
        self.fence = fence
        self._beats = 0
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True, name="lock")

    @classmethod
    def acquire(cls, run: Path, heartbeat_timeout: float, log: Callable[[str], None] = lambda line: None) -> "Lock":
        """Become the writer of a run folder: at once, if the one before is over; else when it is over or silent.

        silence: seconds without a sign of life after which it is taken for dead. Raises UserError if it gives some, and
        where nothing can be written.
        """
        folder, heartbeat_timeout = run / "lock", max(heartbeat_timeout, _LEAST * HEARTBEAT)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            while True:
                holder = _holder(folder)
                if holder is not None and not holder.is_dead:
                    log(
                        f"{holder} has written into {run} and isn't known to be over: listening for "
                        f"{heartbeat_timeout:.0f} s"
                    )
                    _outwait(folder, holder, heartbeat_timeout)
                lock = cls(folder, holder.fence + 1 if holder else 1)
                if lock._take():
                    return lock
        except OSError as error:
            raise UserError(f"{run} can't be written ({error.strerror}): name another --run.dir") from None

    def _take(self) -> bool:
        """Make this number's file, unless another process was faster."""
        try:
            self._file.touch(exist_ok=False)
        except FileExistsError:
            return False
        if _highest(self.folder) > self.fence:  # others have come and gone in the meantime
            self._file.unlink(missing_ok=True)
            return False
        try:
            self._heartbeat()
        except OSError:
            self._file.unlink(missing_ok=True)  # an empty one would make the next process listen to nobody
            raise
        for file in self.folder.glob("*.json"):
            if file.stem.isdecimal() and int(file.stem) < self.fence:
                file.unlink(missing_ok=True)
        self._thread.start()
        return True

    def check_fence(self) -> None:
        """Raise RunError if another process has taken over the run."""
        if _highest(self.folder) > self.fence:
            raise RunError(f"{_holder(self.folder)} has taken over the run in {self.folder.parent}: this one ends here")

    def release(self) -> None:
        """Let the next one write at once."""
        self._released.set()
        self._thread.join()
        with suppress(OSError):  # a full disk: then the next one listens for a while
            if _highest(self.folder) == self.fence:
                self._heartbeat()

    @property
    def _file(self) -> Path:
        return self.folder / f"{self.fence:06d}.json"

    def _live(self) -> None:
        while not self._released.wait(HEARTBEAT):
            with suppress(OSError):  # a full disk is told where it matters: by whoever writes a checkpoint
                if _highest(self.folder) > self.fence:
                    return
                self._heartbeat()

    def _heartbeat(self) -> None:
        """Give a sign of life."""
        self._beats += 1
        me = psutil.Process()
        about = {"host": socket.gethostname(), "machine": _machine(), "pid": me.pid, "started": _started(me)}
        draft = temporary(self._file)
        draft.write_text(json.dumps(about | {"heartbeat": self._beats, "released": self._released.is_set()}) + "\n")
        os.replace(draft, self._file)


def _highest(folder: Path) -> int:
    """The highest number; 0 where nobody ever had one."""
    return max((int(file.stem) for file in folder.glob("*.json") if file.stem.isdecimal()), default=0)


def _holder(folder: Path) -> Holder | None:
    """Who holds the highest number; None where nobody ever did."""
    fence = _highest(folder)
    if not fence:
        return None
    try:
        about = json.loads((folder / f"{fence:06d}.json").read_text())
        names = {"host": str, "machine": str, "pid": int, "started": float, "heartbeat": int, "released": bool}
        return Holder(fence, **{name: kind(about[name]) for name, kind in names.items()})
    except (OSError, ValueError, TypeError, KeyError, RecursionError):  # just being made, or damaged
        return Holder(fence)


def _outwait(folder: Path, holder: Holder, heartbeat_timeout: float) -> None:
    """Return when a holder is over, or has been silent for some time. Raises UserError if it gives signs of life."""
    deadline = time.monotonic() + heartbeat_timeout
    signs = 0
    while time.monotonic() < deadline:
        time.sleep(min(0.2, heartbeat_timeout / 10))
        now = _holder(folder)
        if now is None or now.fence != holder.fence or now.is_dead:
            return
        if now.heartbeat != holder.heartbeat:
            signs, holder = signs + 1, now
            deadline = time.monotonic() + heartbeat_timeout
        if signs == _SIGNS:
            raise UserError(f"{holder} is writing into {folder.parent}: end it first, or name another --run.dir")


def _started(process: psutil.Process) -> float:
    """Seconds from the machine's start to a process's: setting the clock doesn't change it."""
    since = psutil.boot_time()  # asked first: versions before 7 remember it for what follows
    return process.create_time() - since


def _machine() -> str:
    """The same for two processes that see each other's process numbers."""
    try:
        boot, processes = Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")
    except OSError:  # not Linux
        boot, processes = f"{psutil.boot_time():.0f}", ""
    return f"{socket.gethostname()} {boot} {processes}".strip()
