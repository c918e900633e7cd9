"""Identity of a process, by which others on its machine know that it has ended."""

import functools
import os
import socket
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Process:
    """A process."""

    host: str
    machine: str = ""
    """Identifies the boot of a kernel and a PID namespace: within one, PIDs can be compared."""
    pid: int = 0
    started: float = 0.0
    """Start of the process, in seconds since boot."""

    @classmethod
    def current(cls) -> "Process":
        """This process."""
        me = psutil.Process()
        return cls(socket.gethostname(), _machine(), me.pid, _started(me))

    def has_ended(self) -> bool:
        """Whether it is known to have ended. False for a process on another machine."""
        if self.machine != _machine():
            return False
        try:
            process = psutil.Process(self.pid)
            return abs(_started(process) - self.started) > 1 or process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True
        except (psutil.Error, ValueError):  # another user's process, or an invalid PID
            return False


UNKNOWN = Process("?")
"""A process of which nothing is known."""


def _started(process: psutil.Process) -> float:
    """Start of a process in seconds since boot, which setting the clock doesn't change."""
    since = psutil.boot_time()  # first: psutil before 7 caches it for create_time
    return process.create_time() - since


@functools.cache
def _machine() -> str:
    """An id that is equal for processes of one boot and PID namespace."""
    try:
        boot, processes = (
            Path("/proc/sys/kernel/random/boot_id").read_text("utf-8").strip(),
            os.readlink("/proc/self/ns/pid"),
        )
    except OSError:  # not Linux
        boot, processes = f"{psutil.boot_time():.0f}", ""
    return f"{socket.gethostname()} {boot} {processes}".strip()
