"""Identity of a process, by which others on its machine know that it has ended."""

import functools
import os
import socket
from dataclasses import dataclass
from pathlib import Path


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
        """This process; of which only the host is known where the system doesn't tell more."""
        import psutil

        host = socket.gethostname()
        try:
            return cls(host, _machine(), os.getpid(), _started(os.getpid()))
        except (psutil.Error, OSError, RuntimeError):
            return cls(host)

    def has_ended(self) -> bool:
        """Whether it is known to have ended. False for a process on another machine."""
        if not self.machine or self.machine != _machine():
            return False
        import psutil

        try:
            is_another = abs(_started(self.pid) - self.started) > 1
            return is_another or psutil.Process(self.pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True
        except (psutil.Error, OSError, RuntimeError, ValueError):  # another user's, no file descriptor, an invalid PID
            return False


UNKNOWN = Process("?")
"""A process of which nothing is known."""


def _started(pid: int) -> float:
    """Start of a process in seconds since boot, which setting the clock doesn't change."""
    import psutil

    since = psutil.boot_time()  # first: until psutil 7.0, a Process caches what this has found last
    return psutil.Process(pid).create_time() - since


@functools.cache
def _machine() -> str:
    """An id that is equal for processes of one boot and PID namespace."""
    try:
        boot, processes = (
            Path("/proc/sys/kernel/random/boot_id").read_text("utf-8").strip(),
            os.readlink("/proc/self/ns/pid"),
        )
    except OSError:  # not Linux
        import psutil

        boot, processes = f"{psutil.boot_time():.0f}", ""
    return f"{socket.gethostname()} {boot} {processes}".strip()
